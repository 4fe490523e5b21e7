"""A plugin's object as the stages see it: each call watched, each result checked.

The object may have more methods than its contract; they pass through, watched and
without a check, under any public name. Nothing here knows what a stage does with a result.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from swebench_trainer.contracts import (
    Bottlenecks,
    GradedInstance,
    GradeJob,
    Outcome,
    Prompt,
    Sample,
    SourceData,
    TrainRequest,
)
from swebench_trainer.errors import PluginError, TrainerError
from swebench_trainer.plugins.faults import described, fault, faults_of
from swebench_trainer.plugins.shapes import wrong_with
from swebench_trainer.plugins.watchdog import Watchdog
from swebench_trainer.types import Candidate, Instance, Pair, Verdict, is_unicode

Require = Callable[[bool, str], None]
"""Raises a `PluginFault` that says what was done, unless the first holds."""

Role = Literal[
    "source",
    "prompt style",
    "backend",
    "sampler",
    "grader",
    "pair strategy",
    "publisher",
]

METHODS: Mapping[Role, tuple[str, ...]] = {
    "source": ("load", "digest"),
    "prompt style": ("render",),
    "backend": ("check",),
    "sampler": ("sample", "close"),
    "grader": ("check", "grade", "close"),
    "pair strategy": ("pairs",),
    "publisher": ("check", "publish"),
}
"""What an object of each kind must have."""

ALLOWED: Mapping[Role, tuple[type[Exception], ...]] = {
    "prompt style": (TrainerError, ValueError)
}
"""What an object may raise, where it is more than `TrainerError`."""

OFFERS = ("train_sft", "train_dpo", "open_sampler")
"""What a backend may have; it needs no method for what it does not offer."""

WEIGHTS = ("adapter", "model")
"""Directories in which a backend leaves weights, in the directory of the stage."""


@dataclass(frozen=True)
class Call:
    """One call of a plugin.

    Attributes:
        held: Whose it is.
        method: What was called.
        arguments: Positional ones.
    """

    held: GuardedPlugin
    method: str
    arguments: tuple[Any, ...]

    def require(self, holds: bool, what: str) -> None:
        """Raises a `PluginFault` that says what the plugin has done, unless it `holds`."""
        if not holds:
            raise fault(self.held._who, what)

    def require_type(self, value: object, kind: type[Any]) -> None:
        """Raises a `PluginFault` if a result is no `kind`."""
        given = f"returned {described(value)} from {self.method}, not a {kind.__name__}"
        self.require(isinstance(value, kind), given)

    def require_shape(self, value: object, kind: type[Any]) -> None:
        """Raises a `PluginFault` if a result is no `kind`, or one with wrong fields."""
        wrong = wrong_with(value, kind)
        self.require(not wrong, f"gave {wrong}, from {self.method}")


class GuardedPlugin:
    """A plugin's object, held to the contract of its role.

    Args:
        thing: What the plugin's factory, or `open_sampler`, has returned.
        role: What it ought to be.
        who: The plugin, for people.
        watchdog: Watches its calls.
        table: The plugin's table of the recipe.

    Raises:
        PluginFault: It lacks a method of its role.
    """

    def __init__(
        self, thing: Any, role: Role, who: str, watchdog: Watchdog, table: Any
    ) -> None:
        lacking = [name for name in METHODS[role] if not hasattr(thing, name)]
        if lacking:
            raise fault(
                who, f"gave {described(thing)} as its {role}, without {lacking[0]}()"
            )
        self._thing = thing
        self._role = role
        self._watchdog = watchdog
        self._running: list[Generator[Any, None, None]] = []
        self._who = who
        self._table = table

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # ours, and not set yet: a copy is being made
            raise AttributeError(name)
        if self._role == "backend" and name in OFFERS:
            value = getattr(self._thing, name, self._refusal(name))
        else:
            value = getattr(self._thing, name)
        if callable(value):
            return partial(self._call, name, value)
        if self._role == "backend" and name == "name":
            Call(self, name, ()).require_type(value, str)
        return value

    def _refusal(self, name: str) -> Callable[..., Any]:
        def refuse(*_: Any, **__: Any) -> Any:
            raise PluginError(
                f"{self._who} does not offer {name}.",
                hint="Name another backend for this, such as hf.",
            )

        return refuse

    def _call(
        self, name: str, method: Callable[..., Any], *given: Any, **named: Any
    ) -> Any:
        if name == "close":
            self._stop()
        call = Call(self, name, given)
        allowed = ALLOWED.get(self._role, (TrainerError,))
        with self._waited(name) as alive, faults_of(self._who, name, allowed):
            result = method(*_lively(given, alive), **named)
        check = CHECKS.get((self._role, name))
        return check(call, result) if check else result

    @contextmanager
    def _waited(self, name: str) -> Iterator[Callable[[], None]]:
        """Watches a call; gives the function that tells of a sign of life."""
        who, patience = f"{self._who} in {name}", self._watchdog.call_patience
        with self._watchdog.watching(who, patience) as watched:
            yield watched.alive

    def _checked(
        self,
        call: Call,
        results: Any,
        check: Callable[[Any], None],
        at_end: Callable[[], None] = lambda: None,
    ) -> Iterator[Any]:
        """The results of an iterable, each checked before it is handed on."""
        running = self._each(call, results, check, at_end)
        self._running.append(running)
        return running

    def _each(
        self,
        call: Call,
        results: Any,
        check: Callable[[Any], None],
        at_end: Callable[[], None],
    ) -> Generator[Any, None, None]:
        iterator: Any = None
        try:
            with faults_of(self._who, call.method):
                iterator = iter(results)
            while True:
                with self._waited(call.method), faults_of(self._who, call.method):
                    result = next(iterator, _END)
                if result is _END:
                    break
                check(result)
                yield result
            at_end()
        finally:
            if close := getattr(iterator, "close", None):
                with faults_of(self._who, call.method):
                    close()

    def _stop(self) -> None:
        """Closes what still runs, so that `close` frees all of it."""
        while self._running:
            with suppress(ValueError):  # another thread is in it, and will see its end
                self._running.pop().close()


_END = object()


def _lively(given: tuple[Any, ...], alive: Callable[[], None]) -> list[Any]:
    """The arguments; each step of a training is a sign of life."""

    def stepping(request: TrainRequest) -> TrainRequest:
        def step(done: int, total: int, word: str) -> None:
            alive()
            request.step(done, total, word)

        return dataclasses.replace(request, step=step)

    return [stepping(x) if isinstance(x, TrainRequest) else x for x in given]


def _loaded(call: Call, result: Any) -> Any:
    call.require_type(result, SourceData)
    seen: set[str] = set()
    for instance in result.instances:
        call.require_shape(instance, Instance)
        name = instance.instance_id
        call.require(name not in seen, f"gave the instance {name!r} twice")
        seen.add(name)
    return result


def _text(call: Call, result: Any) -> Any:
    call.require_type(result, str)
    return result


def _prompt(call: Call, result: Any) -> Any:
    call.require_shape(result, Prompt)
    return result


def _weights(call: Call, result: Any) -> Any:
    call.require_type(result, Path)
    (request,) = (x for x in call.arguments if isinstance(x, TrainRequest))
    places = [request.out / name for name in WEIGHTS]
    call.require(
        result in places and result.is_dir(),
        f"returned {result.name!r} from {call.method}, and must leave the weights in "
        "adapter/ or model/ of request.out",
    )
    return result


def _sampler(call: Call, result: Any) -> Any:
    held = call.held
    return GuardedPlugin(result, "sampler", held._who, held._watchdog, held._table)


def _samples(call: Call, result: Any) -> Any:
    owed = {(r.instance_id, r.sample) for r in call.arguments[0]}
    asked = frozenset(owed)

    def check(sample: Any) -> None:
        call.require_shape(sample, Sample)
        key = (sample.instance_id, sample.sample)
        name = f"{sample.instance_id} #{sample.sample}"
        call.require(key in asked, f"answered {name}, which nobody asked for")
        call.require(key in owed, f"answered {name} twice")
        owed.remove(key)

    return call.held._checked(call, result, check)


def _outcomes(call: Call, result: Any) -> Any:
    owed = {_key(job): job for job in call.arguments[0]}
    count = len(owed)

    def check(item: Any) -> None:
        paired = isinstance(item, tuple) and len(item) == 2
        call.require(
            paired and isinstance(item[0], GradeJob),
            f"gave {described(item)} from grade, not a pair of job and outcome",
        )
        call.require_shape(item[1], Outcome)
        name = f"{item[0].candidate.instance_id} #{item[0].candidate.sample}"
        asked = _key(item[0]) in owed
        call.require(asked, f"graded {name} twice, or without being asked to")
        del owed[_key(item[0])]

    def at_end() -> None:
        call.require(not owed, f"ended without deciding {len(owed)} of {count} jobs")

    return call.held._checked(call, result, check, at_end)


def _key(job: GradeJob) -> tuple[str, str, int, int]:
    about = job.candidate
    return about.model, about.instance_id, about.sample, job.repeat


def _pairs(call: Call, result: Any) -> Any:
    given = {item.instance.instance_id: item for item in call.arguments[0]}
    table = call.held._table  # that of a suite says less than a recipe's
    alone = getattr(table, "one_sided", False)
    most = getattr(table, "max_per_instance", math.inf)
    made: set[Pair] = set()
    counts: Counter[str] = Counter()

    def check(pair: Any) -> None:
        call.require_shape(pair, Pair)
        name = pair.instance_id
        call.require(
            name in given, f"made a pair of {name!r}, which is no given instance"
        )

        def require(holds: bool, what: str) -> None:
            call.require(holds, f"made a pair of {name!r} {what}")

        require(pair.prompt == given[name].prompt, "with a prompt of its own")
        sides = [text for text in (pair.chosen, pair.rejected) if text is not None]
        require(bool(sides), "without an answer")
        require(all(map(is_unicode, sides)), "with text that cannot be written")
        good = pair.chosen is None or bool(pair.chosen.strip())
        require(good, "whose chosen answer is empty")
        require(
            alone or len(sides) == 2,
            "whose answer stands alone, which its table (one_sided) denies",
        )
        require(len(set(sides)) == len(sides), "whose answers are one")
        require(pair not in made, "twice")
        made.add(pair)
        counts[name] += 1
        require(counts[name] <= most, f"beyond max_per_instance, {most}")
        own = pair.strategy == getattr(table, "use", pair.strategy)
        require(own, f"in the name of the strategy {pair.strategy!r}")
        _require_verdicts(given[name], pair, require)

    return call.held._checked(call, result, check)


def _require_verdicts(item: GradedInstance, pair: Pair, require: Require) -> None:
    """Holds a pair to the candidates that it names, and to their verdicts."""
    rewards = [
        *_chosen_rewards(item, pair, require),
        *_rejected_rewards(item, pair, require),
    ]
    known = [reward for reward in rewards if reward is not None]
    require(len(known) == len(rewards), "with a verdict that is masked")
    require(known == sorted(known, reverse=True), "that prefers the worse answer")


def _chosen_rewards(
    item: GradedInstance, pair: Pair, require: Require
) -> Iterator[float | None]:
    """The reward of `chosen`, unless it is gold or nobody graded it."""
    if pair.chosen is None:
        return
    if pair.chosen_source == "gold":
        require(pair.chosen == item.gold, "whose chosen answer is not gold, as it says")
        return
    source = pair.chosen_source
    for candidate, verdict in _named(item, source, pair.chosen_model, require):
        own = pair.chosen == candidate.text
        require(own, f"whose chosen answer is not what {source} says")
        if verdict:
            sound = verdict.reward != 1 or verdict.trusted_pass
            require(sound, "whose chosen answer passes, and is not to be trusted")
            told = verdict.reward in (1, None) or bool(pair.chosen_tier)
            require(told, "whose chosen answer fails, without a chosen_tier")
            yield verdict.reward


def _rejected_rewards(
    item: GradedInstance, pair: Pair, require: Require
) -> Iterator[float | None]:
    """The reward of `rejected`, unless nobody graded it."""
    if pair.rejected is None:
        return
    source = pair.rejected_source
    for candidate, verdict in _named(item, source, pair.rejected_model, require):
        own = pair.restyled or pair.rejected == candidate.text
        require(own, f"whose rejected answer is not what {source} says")
        if verdict:
            require(not verdict.flaky, "whose rejected answer is flaky")
            require(verdict.reward != 1, "whose rejected answer passes")
            yield verdict.reward


def _named(
    item: GradedInstance, source: str, model: str, require: Require
) -> list[tuple[Candidate, Verdict | None]]:
    """The candidate that a pair names, with its verdict; none where it may be either of two."""
    everybody = [*item.graded, *((candidate, None) for candidate in item.ungraded)]
    named = [
        (candidate, verdict)
        for candidate, verdict in everybody
        if source == f"sample:{candidate.sample}" and model in ("", candidate.model)
    ]
    require(bool(named), f"from {source!r}, which is no candidate of it")
    return named if len(named) == 1 else []


def _counts(call: Call, result: Any) -> Any:
    if isinstance(result, Bottlenecks):
        call.require_shape(result, Bottlenecks)
        return result
    call.require_type(result, Mapping)
    for reason, count in result.items():
        known = isinstance(reason, str) and isinstance(count, int)
        call.require(
            known, f"gave {reason!r}: {described(count)}, no count of a reason"
        )
    return result


def _figures(call: Call, result: Any) -> Any:
    call.require_type(result, Mapping)
    for name, value in result.items():
        known = isinstance(name, str) and isinstance(value, str | int | float)
        call.require(known, f"gave {name!r}: {described(value)}, no text and no number")
    return result


CHECKS: Mapping[tuple[Role, str], Callable[[Call, Any], Any]] = {
    ("source", "load"): _loaded,
    ("source", "digest"): _text,
    ("prompt style", "render"): _prompt,
    ("backend", "train_sft"): _weights,
    ("backend", "train_dpo"): _weights,
    ("backend", "open_sampler"): _sampler,
    ("sampler", "sample"): _samples,
    ("grader", "grade"): _outcomes,
    ("pair strategy", "pairs"): _pairs,
    ("pair strategy", "limits"): _counts,
    ("backend", "figures"): _figures,
    ("publisher", "publish"): _text,
}
"""What is made of a result: it is checked, and handed on as the stages want it."""
