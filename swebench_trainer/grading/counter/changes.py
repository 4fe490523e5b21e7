"""Changed versions of an instance's official tests, which a right patch must fail."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from swebench_trainer.grading.counter import python
from swebench_trainer.grading.counter.draws import Draws
from swebench_trainer.grading.counter.golang import GO
from swebench_trainer.grading.counter.java import JAVA
from swebench_trainer.grading.counter.javascript import JAVASCRIPT
from swebench_trainer.grading.counter.places import Place
from swebench_trainer.grading.counter.rust import RUST
from swebench_trainer.grading.counter.scripts import TestScript
from swebench_trainer.grading.counter.test_files import TestPatch
from swebench_trainer.store.digest import digest
from swebench_trainer.types import Instance, Strength

VARIANTS = 12
"""Largest number of changes of one strength."""

FindPlaces = Callable[[TestPatch, Instance, Strength], Iterator[Place]]
_LANGUAGES: tuple[FindPlaces, ...] = (
    python.places,
    JAVASCRIPT.places,
    GO.places,
    RUST.places,
    JAVA.places,
)


@dataclass(frozen=True)
class TestChange:
    """A way to change the tests.

    Attributes:
        tests: Names, as the harness's log parser reports them, of the tests that must
            end as explicit failures; for a canary, the new test. Other expected tests
            must pass.
        files: Changed files of the repository.
        eval_script: The derived eval script.
        key: Digest that identifies the change.
    """

    __test__ = False

    strength: Strength
    tests: tuple[str, ...]
    files: tuple[str, ...]
    eval_script: str
    key: str


def proposed_changes(
    instance: Instance, files: Mapping[str, str] | None = None
) -> list[TestChange]:
    """The changes that are possible, the strongest first.

    They are the same each time. Whether one has the desired effect is known only after
    a run with the gold patch.

    Args:
        instance: The instance with its eval script and test patch.
        files: Complete files after the test patch by path, where they are known.
    """
    script = TestScript.of(instance)
    if script is None:
        return []
    patch = TestPatch(script.patch, files)
    changes = [
        change
        for strength in Strength
        for change in _changes(instance, script, patch, strength)
    ]
    return list({change.key: change for change in changes}.values())


def derived_instance(instance: Instance, change: TestChange) -> Instance:
    """The instance whose tests are changed.

    Its FAIL_TO_PASS tests are those that must fail, and its PASS_TO_PASS tests are all
    other expected tests. Its test patch is the one that the script applies, if any.
    """
    derived = dataclasses.replace(instance, eval_script=change.eval_script)
    before, after = TestScript.of(instance), TestScript.of(derived)
    applies = before is not None and before.applies
    expected = dict.fromkeys((*instance.FAIL_TO_PASS, *instance.PASS_TO_PASS))
    return dataclasses.replace(
        derived,
        test_patch=after.patch if after and applies else instance.test_patch,
        FAIL_TO_PASS=change.tests,
        PASS_TO_PASS=tuple(name for name in expected if name not in change.tests),
    )


def _changes(
    instance: Instance, script: TestScript, patch: TestPatch, strength: Strength
) -> Iterator[TestChange]:
    by_test: dict[str, list[Place]] = {}
    for find in _LANGUAGES:
        for place in find(patch, instance, strength):
            by_test.setdefault(place.test, []).append(place)
    for chosen in _selections(list(by_test.values()), instance, strength):
        edits: dict[str, dict[int, str]] = {}
        ends: dict[str, str] = {}
        growth: Counter[str] = Counter()
        for place, text in chosen:
            growth[place.path] += len(text.encode()) - len(place.old.encode())
            if place.number:
                edits.setdefault(place.path, {})[place.number] = text
            else:
                ends[place.path] = text
        if not all(growth.values()):
            continue  # bytecode of the official file could pass for the changed one
        tests = tuple(sorted({name for place, _ in chosen for name in place.names}))
        eval_script = script.with_changes(patch, edits, ends)
        yield TestChange(
            strength,
            tests,
            files=tuple(sorted(growth)),
            eval_script=eval_script,
            key=digest([strength, tests, eval_script]),
        )


def _selections(
    tests: Sequence[Sequence[Place]], instance: Instance, strength: Strength
) -> Iterator[list[tuple[Place, str]]]:
    """Choices of places and their texts, first in all tests, then in fewer."""
    if not tests:
        return
    draws = Draws(instance.instance_id, strength)
    for variant in range(VARIANTS):
        # All tests, then halves, quarters, … down to one.
        count = max(1, len(tests) >> (variant * 4 // VARIANTS))
        some = draws.shuffled(tests)[:count]
        places = [draws.choice(places) for places in some]
        yield [(place, draws.choice(place.texts)) for place in places]
