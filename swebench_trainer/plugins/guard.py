"""Third-party plugin objects as stages see them: errors named, results checked.

An object may have more methods than its contract. They pass through unchecked; their
errors are still attributed to the plugin. The checks here cover types and complete
answers to requests, not how a stage uses a result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from swebench_trainer.contracts import (
    Bottlenecks,
    GradeJob,
    Outcome,
    Prompt,
    Sample,
    SourceData,
    TrainRequest,
)
from swebench_trainer.errors import PluginError, TrainerError
from swebench_trainer.plugins.faults import plugin_call, plugin_fault, type_name
from swebench_trainer.types import Instance, Pair, as_row

Role = Literal[
    "source",
    "prompt style",
    "backend",
    "sampler",
    "grader",
    "pair strategy",
    "publisher",
]

REQUIRED_METHODS: Mapping[Role, tuple[str, ...]] = {
    "source": ("load", "digest"),
    "prompt style": ("render",),
    "backend": ("check",),
    "sampler": ("sample", "close"),
    "grader": ("check", "grade", "close"),
    "pair strategy": ("pairs",),
    "publisher": ("check", "publish"),
}

ALLOWED_ERRORS: Mapping[Role, tuple[type[Exception], ...]] = {
    "prompt style": (TrainerError, ValueError)
}
"""Errors that pass through, for roles that allow more than `TrainerError`."""

OPTIONAL_METHODS = ("train_sft", "train_dpo", "open_sampler")
"""Methods that a backend may leave out."""

WEIGHTS = ("adapter", "model")
"""Names of weights directories, in the stage's directory."""


@dataclass(frozen=True)
class Call:
    """One call of a plugin's method.

    Attributes:
        arguments: Positional arguments.
    """

    plugin: GuardedPlugin
    method: str
    arguments: tuple[Any, ...]

    def require(self, holds: bool, problem: str) -> None:
        """Raise a `PluginFault` with the problem unless the condition holds."""
        if not holds:
            raise plugin_fault(self.plugin._who, problem)

    def require_type(self, value: object, kind: type[Any]) -> None:
        """Raise a `PluginFault` if a result is not a `kind`."""
        problem = (
            f"returned {type_name(value)} from {self.method}, not a {kind.__name__}"
        )
        self.require(isinstance(value, kind), problem)

    def require_fields(self, value: object, kind: type[Any]) -> None:
        """Raise a `PluginFault` if a result is not a `kind`, or has a wrong field."""
        problem = wrong_field(value, kind)
        self.require(not problem, f"gave {problem}, from {self.method}")


class GuardedPlugin:
    """An object of a plugin, checked against the contract of its role.

    Args:
        plugin: Return value of the plugin's factory, or of `open_sampler`.
        role: The contract to check.
        who: The plugin, as messages name it.

    Raises:
        PluginFault: A method that the role requires is missing.
    """

    def __init__(self, plugin: Any, role: Role, who: str) -> None:
        for name in REQUIRED_METHODS[role]:
            if not hasattr(plugin, name):
                problem = f"gave {type_name(plugin)} as its {role}, without {name}()"
                raise plugin_fault(who, problem)
        self._plugin = plugin
        self._role = role
        self._open: list[Generator[Any, None, None]] = []
        self._who = who

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # our own, unset while a copy is being made
            raise AttributeError(name)
        if self._role == "backend" and name in OPTIONAL_METHODS:
            value = getattr(self._plugin, name, self._refusal(name))
        else:
            value = getattr(self._plugin, name)
        if callable(value):
            return partial(self._call, name, value)
        if self._role == "backend" and name == "name":
            Call(self, name, ()).require_type(value, str)
        return value

    def _refusal(self, name: str) -> Callable[..., Any]:
        def refuse(*_: Any, **__: Any) -> Any:
            raise PluginError(
                f"{self._who} does not offer {name}.",
                hint="Use another backend for this, such as hf.",
            )

        return refuse

    def _call(
        self, name: str, method: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        if name == "close":
            self._close_iterators()
        call = Call(self, name, args)
        allowed = ALLOWED_ERRORS.get(self._role, (TrainerError,))
        with plugin_call(self._who, name, allowed):
            result = method(*args, **kwargs)
        check = CHECKS.get((self._role, name))
        return check(call, result) if check else result

    def _checked(
        self,
        call: Call,
        results: Any,
        check: Callable[[Any], None],
        at_end: Callable[[], None] = lambda: None,
    ) -> Iterator[Any]:
        """The results of an iterable, each checked before it is handed on."""
        generator = self._each(call, results, check, at_end)
        self._open.append(generator)
        return generator

    def _each(
        self,
        call: Call,
        results: Any,
        check: Callable[[Any], None],
        at_end: Callable[[], None],
    ) -> Generator[Any, None, None]:
        iterator: Any = None
        try:
            with plugin_call(self._who, call.method):
                iterator = iter(results)
            while True:
                with plugin_call(self._who, call.method):
                    result = next(iterator, _END)
                if result is _END:
                    break
                check(result)
                yield result
            at_end()
        finally:
            if close := getattr(iterator, "close", None):
                with plugin_call(self._who, call.method):
                    close()

    def _close_iterators(self) -> None:
        """Close unfinished iterators, so that `close` frees everything."""
        while self._open:
            with suppress(ValueError):  # running in another thread, which will finish
                self._open.pop().close()


_END = object()


def wrong_field(value: object, kind: type[Any]) -> str:
    """Why a value is not a valid `kind`, a dataclass; empty if it is."""
    if not isinstance(value, kind):
        return f"{type_name(value)}, not a {kind.__name__}"
    try:
        _strict_model(kind).model_validate(as_row(value))  # type: ignore[arg-type]  # types hash
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        message = first["msg"][:1].lower() + first["msg"][1:]
        given = type_name(first["input"])
        return f"a {kind.__name__} with the wrong {field} ({given}: {message})"
    return ""


@cache
def _strict_model(kind: type[Any]) -> type[BaseModel]:
    """A model with the fields of a dataclass, which itself checks nothing."""
    hints = get_type_hints(kind, include_extras=True)
    fields = {spec.name: (hints[spec.name], ...) for spec in dataclasses.fields(kind)}
    config = ConfigDict(
        strict=True, arbitrary_types_allowed=True, protected_namespaces=()
    )
    return create_model(kind.__name__, __config__=config, **fields)  # type: ignore[call-overload,no-any-return]  # fields by name


def _loaded(call: Call, result: Any) -> Any:
    call.require_type(result, SourceData)
    seen: set[str] = set()
    for instance in result.instances:
        call.require_fields(instance, Instance)
        name = instance.instance_id
        call.require(name not in seen, f"gave the instance {name!r} twice")
        seen.add(name)
    return result


def _text(call: Call, result: Any) -> Any:
    call.require_type(result, str)
    return result


def _prompt(call: Call, result: Any) -> Any:
    call.require_fields(result, Prompt)
    return result


def _weights(call: Call, result: Any) -> Any:
    call.require_type(result, Path)
    (request,) = (x for x in call.arguments if isinstance(x, TrainRequest))
    places = [request.out / name for name in WEIGHTS]
    call.require(
        result in places and result.is_dir(),
        f"returned {result.name!r} from {call.method}; weights belong in adapter/ or "
        "model/ of request.out",
    )
    return result


def _sampler(call: Call, result: Any) -> Any:
    return GuardedPlugin(result, "sampler", call.plugin._who)


def _samples(call: Call, result: Any) -> Any:
    owed = {(r.instance_id, r.sample) for r in call.arguments[0]}
    requested = frozenset(owed)

    def check(sample: Any) -> None:
        call.require_fields(sample, Sample)
        key = (sample.instance_id, sample.sample)
        name = f"{sample.instance_id} #{sample.sample}"
        call.require(key in requested, f"answered {name}, which was not requested")
        call.require(key in owed, f"answered {name} twice")
        owed.remove(key)

    return call.plugin._checked(call, result, check)


def _outcomes(call: Call, result: Any) -> Any:
    owed = {_key(job): job for job in call.arguments[0]}
    count = len(owed)

    def check(item: Any) -> None:
        paired = isinstance(item, tuple) and len(item) == 2
        call.require(
            paired and isinstance(item[0], GradeJob),
            f"gave {type_name(item)} from grade, not a (job, outcome) tuple",
        )
        call.require_fields(item[1], Outcome)
        name = f"{item[0].candidate.instance_id} #{item[0].candidate.sample}"
        asked = _key(item[0]) in owed
        call.require(asked, f"graded {name} twice, or without a request")
        del owed[_key(item[0])]

    def at_end() -> None:
        call.require(not owed, f"ended without deciding {len(owed)} of {count} jobs")

    return call.plugin._checked(call, result, check, at_end)


def _key(job: GradeJob) -> tuple[str, str, int, int]:
    about = job.candidate
    return about.model, about.instance_id, about.sample, job.repeat


def _pairs(call: Call, result: Any) -> Any:
    return call.plugin._checked(
        call, result, lambda pair: call.require_fields(pair, Pair)
    )


def _counts(call: Call, result: Any) -> Any:
    if isinstance(result, Bottlenecks):
        call.require_fields(result, Bottlenecks)
        return result
    return _figures(call, result, (int,), "a count")


def _figures(
    call: Call,
    result: Any,
    kinds: tuple[type, ...] = (str, int, float),
    wanted: str = "text or a number",
) -> Any:
    call.require_type(result, Mapping)
    for name, value in result.items():
        valid = isinstance(name, str) and isinstance(value, kinds)
        call.require(valid, f"gave {name!r}: {type_name(value)}, not {wanted}")
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
"""Checks of results, by role and method; each returns the result for the stage."""
