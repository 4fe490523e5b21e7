"""Third-party plugin objects as stages see them: errors named, results checked.

An object may have more methods than its contract. They pass through unchecked; their
errors are still attributed to the plugin. The checks here cover types and complete
answers to requests, not how a stage uses a result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from swebench_trainer import contracts
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

    who: str
    method: str
    arguments: tuple[Any, ...]

    def require(self, holds: bool, problem: str) -> None:
        """Raise a `PluginFault` with the problem unless the condition holds."""
        if not holds:
            raise plugin_fault(self.who, problem)

    def of_type(self, value: Any, kind: type[Any]) -> Any:
        """A result that is a `kind`; raise a `PluginFault` if it is not."""
        given = type_name(value)
        problem = f"returned {given} from {self.method}, not a {kind.__name__}"
        self.require(isinstance(value, kind), problem)
        return value

    def valid(self, value: Any, kind: type[Any]) -> Any:
        """A `kind` with valid fields; raise a `PluginFault` if it is not."""
        problem = wrong_field(value, kind)
        self.require(not problem, f"gave {problem}, from {self.method}")
        return value


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
            Call(self._who, name, ()).of_type(value, str)
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
        allowed = ALLOWED_ERRORS.get(self._role, (TrainerError,))
        with plugin_call(self._who, name, allowed):
            result = method(*args, **kwargs)
        check = CHECKS.get((self._role, name))
        checked = check(Call(self._who, name, args), result) if check else result
        if isinstance(checked, Generator) and checked is not result:
            self._open.append(checked)
        return checked

    def _close_iterators(self) -> None:
        """Close unfinished iterators, so that `close` frees everything."""
        while self._open:
            with suppress(ValueError):  # running in another thread, which will finish
                self._open.pop().close()


def _each(call: Call, results: Any) -> Generator[Any, None, None]:
    """The results of an iterable of a plugin, whose errors name the plugin."""
    iterator: Any = None
    try:
        with plugin_call(call.who, call.method):
            iterator = iter(results)
        while True:
            with plugin_call(call.who, call.method):
                result = next(iterator, _END)
            if result is _END:
                return
            yield result
    finally:
        if close := getattr(iterator, "close", None):
            with plugin_call(call.who, call.method):
                close()


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
    seen: set[str] = set()
    for instance in call.of_type(result, contracts.SourceData).instances:
        name = call.valid(instance, Instance).instance_id
        call.require(name not in seen, f"gave the instance {name!r} twice")
        seen.add(name)
    return result


def _weights(call: Call, result: Any) -> Any:
    (request,) = (x for x in call.arguments if isinstance(x, contracts.TrainRequest))
    places = [request.out / name for name in WEIGHTS]
    call.require(
        call.of_type(result, Path) in places and result.is_dir(),
        f"returned {result.name!r} from {call.method}; weights belong in adapter/ or "
        "model/ of request.out",
    )
    return result


def _samples(call: Call, results: Any) -> Iterator[Any]:
    owed = {(r.instance_id, r.sample) for r in call.arguments[0]}
    requested = frozenset(owed)
    with closing(_each(call, results)) as samples:
        for sample in samples:
            call.valid(sample, contracts.Sample)
            key = (sample.instance_id, sample.sample)
            name = f"{sample.instance_id} #{sample.sample}"
            call.require(key in requested, f"answered {name}, which was not requested")
            call.require(key in owed, f"answered {name} twice")
            owed.remove(key)
            yield sample


def _outcomes(call: Call, results: Any) -> Iterator[Any]:
    owed = set(map(_key, call.arguments[0]))
    count = len(owed)
    with closing(_each(call, results)) as items:
        for item in items:
            paired = isinstance(item, tuple) and len(item) == 2
            call.require(
                paired and isinstance(item[0], contracts.GradeJob),
                f"gave {type_name(item)} from grade, not a (job, outcome) tuple",
            )
            call.valid(item[1], contracts.Outcome)
            key, about = _key(item[0]), item[0].candidate
            name = f"{about.instance_id} #{about.sample}"
            call.require(key in owed, f"graded {name} twice, or without a request")
            owed.remove(key)
            yield item
    call.require(not owed, f"ended without deciding {len(owed)} of {count} jobs")


def _key(job: contracts.GradeJob) -> tuple[str, str, int, int]:
    about = job.candidate
    return about.model, about.instance_id, about.sample, job.repeat


def _pairs(call: Call, results: Any) -> Iterator[Any]:
    with closing(_each(call, results)) as pairs:
        for pair in pairs:
            yield call.valid(pair, Pair)


def _limits(call: Call, result: Any) -> Any:
    if isinstance(result, contracts.Bottlenecks):
        return call.valid(result, contracts.Bottlenecks)
    return _numbers(call, result, int, "a count")


def _numbers(call: Call, result: Any, kind: Any, wanted: str) -> Any:
    for name, value in call.of_type(result, Mapping).items():
        valid = isinstance(name, str) and isinstance(value, kind)
        call.require(valid, f"gave {name!r}: {type_name(value)}, not {wanted}")
    return result


CHECKS: Mapping[tuple[Role, str], Callable[[Call, Any], Any]] = {
    ("source", "load"): _loaded,
    ("source", "digest"): lambda call, text: call.of_type(text, str),
    ("prompt style", "render"): lambda call, prompt: call.valid(
        prompt, contracts.Prompt
    ),
    ("backend", "train_sft"): _weights,
    ("backend", "train_dpo"): _weights,
    ("backend", "open_sampler"): lambda call, sampler: GuardedPlugin(
        sampler, "sampler", call.who
    ),
    ("backend", "figures"): lambda call, figures: _numbers(
        call, figures, str | int | float, "text or a number"
    ),
    ("sampler", "sample"): _samples,
    ("grader", "grade"): _outcomes,
    ("pair strategy", "pairs"): _pairs,
    ("pair strategy", "limits"): _limits,
    ("publisher", "publish"): lambda call, location: call.of_type(location, str),
}
"""Checks of results, by role and method; each returns the result for the stage."""
