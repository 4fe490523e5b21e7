"""Counter-runs: passing patches on tests that were changed so that they must fail.

A change is used only if gold fails the changed tests and passes all others. Gold runs
when a pass first needs the change, so instances without a pass cost nothing. Which of
the usable changes a patch has to fail depends on a secret of the user.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from swebench_trainer.contracts import GoldRun, Grader, ItemProgress
from swebench_trainer.grading.counter.changes import (
    TestChange,
    derived_instance,
    proposed_changes,
)
from swebench_trainer.grading.counter.results import (
    CounterResult,
    calibrates,
    counter_result,
)
from swebench_trainer.grading.counter.secret import Ranking
from swebench_trainer.grading.ledger import Ledger, require_decided
from swebench_trainer.grading.retest import PASSES_ANYTHING, UNCONFIRMED
from swebench_trainer.store.digest import digest
from swebench_trainer.store.jsonl import each_row, write_rows
from swebench_trainer.types import Candidate, Instance, Strength, Verdict, from_row

COUNTER = "counter"
"""Name of the directory of counter-runs."""

ROWS = "counter_runs.jsonl"
"""Name of the file with a row per run of changed tests."""

DRAWN = 2
"""Number of changes between which the secret decides."""

MAX_TRIES = 6
"""Maximum number of changes of one strength that gold tries."""

GOLD = "gold"
"""`Candidate.model` of the runs of the gold patch, before the key of the change."""

PatchKey = tuple[str, str]
"""Instance id and digest of a patch."""

RunKey = tuple[str, str, str]
"""Instance id, digest of the patch, and key of the change."""


@dataclass(frozen=True)
class CounterRun:
    """A run of changed tests: a row of `counter_runs.jsonl`.

    Attributes:
        patch: Digest of the patch; gold's if the run tries out the change.
        key: Name of the change.
        tests: Tests that must fail.
        result: How they ended.
        calibrates: Whether it is gold, and only the changed tests failed.
        log: Directory of the logs, relative to the file.
    """

    instance_id: str
    patch: str
    key: str
    strength: Strength
    tests: tuple[str, ...]
    status: str
    result: CounterResult
    calibrates: bool
    log: str


@dataclass(frozen=True)
class GradingContext:
    """What counter-runs share with the grading that they follow.

    Attributes:
        grader: An open grader.
        instances: The instances that it was opened for.
        gold: The gold run of an instance.
        done: Called after each run.
        max_faults: Number of runs that may stay undecided; see `require_decided`.
        run_id: Name of the run in the harness's log layout.
    """

    grader: Grader
    instances: Sequence[Instance]
    gold: Callable[[Instance], GoldRun | None]
    done: ItemProgress
    max_faults: int | None
    run_id: str


class CounterRuns:
    """The counter-runs of one stage: a ledger, its logs, and `counter_runs.jsonl`.

    Args:
        folder: Directory of the runs.
        context: The grading that they follow.
        rank: The order that the user's secret gives to names.
        propose: The changes of an instance, the strongest first.
    """

    def __init__(
        self,
        folder: Path,
        context: GradingContext,
        rank: Ranking,
        propose: Callable[[Instance], Sequence[TestChange]] = proposed_changes,
    ) -> None:
        self._folder = folder
        self._context = context
        self._rank = rank
        self._propose = propose
        self._instances = {i.instance_id: i for i in context.instances}
        self._changes: dict[str, list[TestChange]] = {}
        self._runs: dict[RunKey, CounterRun] = {}
        self._candidates: list[Candidate] = []

    def check(
        self, candidates: Sequence[Candidate], verdicts: Sequence[Verdict]
    ) -> list[Verdict]:
        """Run what the passes need, and return the verdicts with the results.

        Args:
            candidates: Graded candidates.
            verdicts: Their verdicts; only passes without flags are run.

        Raises:
            StageError: Infrastructure failures left too many runs undecided.
        """
        passes: dict[PatchKey, Candidate] = {}
        for candidate, verdict in zip(candidates, verdicts, strict=True):
            if verdict.trusted_pass:
                passes.setdefault((verdict.instance_id, verdict.patch), candidate)
        chosen = self._choose(passes)
        self._run((passes[key], change) for key, change in chosen.items())
        self._write()
        return [self._checked(verdict, chosen) for verdict in verdicts]

    def _choose(
        self, passes: Mapping[PatchKey, Candidate]
    ) -> dict[PatchKey, TestChange]:
        """The change that each patch has to fail, for those that have one."""
        untried = {key: iter(self._ordered(key)) for key in passes}
        chosen: dict[PatchKey, TestChange] = {}
        while untried:
            tried = {key: next(changes, None) for key, changes in untried.items()}
            untried = {key: untried[key] for key, change in tried.items() if change}
            self._run(
                (self._gold(name), tried_change)
                for (name, _), tried_change in tried.items()
                if tried_change
            )
            for key in list(untried):
                change = tried[key]
                if change and self._runs[self._gold_key(key[0], change)].calibrates:
                    chosen[key] = change
                    del untried[key]
        return chosen

    def _ordered(self, key: PatchKey) -> Iterator[TestChange]:
        """The changes that a patch may have to fail, in the order to try them."""
        name, _ = key
        if name not in self._changes:
            self._changes[name] = list(self._propose(self._instances[name]))
        for _, same in groupby(self._changes[name], lambda change: change.strength):
            for drawn in _draws(list(same)):
                yield from sorted(drawn, key=lambda c: self._rank(*key, c.key))

    def _gold(self, name: str) -> Candidate:
        return Candidate(name, 0, GOLD, "", self._instances[name].patch)

    def _gold_key(self, name: str, change: TestChange) -> RunKey:
        return name, digest(self._instances[name].patch), change.key

    def _run(self, wanted: Iterable[tuple[Candidate, TestChange]]) -> None:
        """Run patches on changed tests, each once."""
        todo: dict[RunKey, tuple[Candidate, TestChange]] = {}
        for candidate, change in wanted:
            key = (candidate.instance_id, digest(candidate.patch), change.key)
            if key not in self._runs:
                todo.setdefault(key, (candidate, change))
        if not todo:
            return
        # A run's name includes its change, so its verdict is never used for another.
        named = [
            dataclasses.replace(candidate, model=f"{candidate.model}.{change.key}")
            for candidate, change in todo.values()
        ]
        pairs = zip(named, todo.values(), strict=True)
        changes = {(c.instance_id, c.model): change for c, (_, change) in pairs}

        def tests_of(instance: Instance, candidate: Candidate) -> Instance:
            change = changes[candidate.instance_id, candidate.model]
            return derived_instance(instance, change)

        context = self._context
        ledger = self._ledger(tests_of=tests_of, growing=True)
        verdicts = ledger.grade(
            context.grader,
            named,
            context.done,
            once_per_patch=False,
            gold=context.gold,
        )
        require_decided(verdicts, context.max_faults)
        for (key, (_, change)), verdict in zip(todo.items(), verdicts, strict=True):
            self._runs[key] = self._judged(key, change, verdict)
        self._candidates += named

    def _ledger(self, **options: Any) -> Ledger:
        instances, run_id = self._context.instances, self._context.run_id
        return Ledger(self._folder, instances, run_id=run_id, **options)

    def _judged(self, key: RunKey, change: TestChange, verdict: Verdict) -> CounterRun:
        instance, log_dir = self._instances[key[0]], self._folder / verdict.log
        judged = (instance, change.tests, verdict, log_dir)
        is_gold = key == self._gold_key(key[0], change)
        return CounterRun(
            *key,
            strength=change.strength,
            tests=change.tests,
            status=verdict.status,
            result=counter_result(*judged),
            calibrates=is_gold and calibrates(*judged),
            log=verdict.log,
        )

    def _write(self) -> None:
        """Write all rows in an order that does not depend on the order of the runs."""
        if not self._runs:
            return
        named = sorted(self._candidates, key=lambda c: (c.instance_id, c.model))
        self._ledger().settle(named)
        rows = [self._runs[key] for key in sorted(self._runs)]
        write_rows(self._folder / ROWS, map(dataclasses.asdict, rows))

    def _checked(
        self, verdict: Verdict, chosen: Mapping[PatchKey, TestChange]
    ) -> Verdict:
        key = (verdict.instance_id, verdict.patch)
        change = chosen.get(key)
        return checked(verdict, self._runs[(*key, change.key)] if change else None)


def checked(verdict: Verdict, run: CounterRun | None) -> Verdict:
    """A verdict with the result of its counter-run; unchanged if it needed none.

    Args:
        verdict: The verdict, without results of an earlier counter-run.
        run: Its counter-run, if its instance has a change that works.
    """
    if run is None or not verdict.trusted_pass:
        return verdict
    match run.result:
        case CounterResult.FAILED:
            return dataclasses.replace(verdict, strength=run.strength)
        case CounterResult.PASSED:
            return dataclasses.replace(verdict, flags=(PASSES_ANYTHING,))
        case CounterResult.UNDECIDED:
            return dataclasses.replace(verdict, flags=(UNCONFIRMED,))


@dataclass(frozen=True)
class RejudgedRuns:
    """Counter-runs judged again from their logs.

    Attributes:
        by_patch: The counter-run of each patch; for gold's patch the strongest.
        changes: Number of runs with another result than before.
    """

    by_patch: Mapping[PatchKey, CounterRun]
    changes: int


def rejudge_runs(folder: Path, instances: Mapping[str, Instance]) -> RejudgedRuns:
    """Judge the counter-runs in a directory again, without writing anything.

    Args:
        folder: Directory of `CounterRuns`; it may be missing.
        instances: The instances by id.
    """
    verdicts = (from_row(Verdict, row) for row in each_row(folder / "verdicts.jsonl"))
    by_log = {verdict.log: verdict for verdict in verdicts}
    by_patch: dict[PatchKey, CounterRun] = {}
    changes = 0
    for old in (from_row(CounterRun, row) for row in each_row(folder / ROWS)):
        name = old.instance_id
        if name not in instances or old.log not in by_log:
            continue
        judged = (instances[name], old.tests, by_log[old.log], folder / old.log)
        is_gold = old.patch == digest(instances[name].patch)
        new = dataclasses.replace(
            old,
            result=counter_result(*judged),
            calibrates=is_gold and calibrates(*judged),
        )
        changes += new != old
        known = by_patch.get((name, old.patch))
        if known is None or (new.calibrates and not known.calibrates):
            by_patch[name, old.patch] = new
    return RejudgedRuns(by_patch, changes)


def _draws(changes: Sequence[TestChange]) -> Iterator[list[TestChange]]:
    """Changes of one strength in small groups, within which the secret decides.

    Groups of few tests follow those of many, since one test can spoil a whole change.
    """
    by_count: dict[int, list[TestChange]] = defaultdict(list)
    for change in changes:
        by_count[len(change.tests)].append(change)
    tries = [change for same in by_count.values() for change in same[:DRAWN]]
    tries += [change for same in by_count.values() for change in same[DRAWN:]]
    for start in range(0, min(len(tries), MAX_TRIES), DRAWN):
        yield tries[start : min(start + DRAWN, MAX_TRIES)]
