"""Loads plugins, each in isolation, and combines the results of their hooks."""

from __future__ import annotations

import importlib.metadata
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, get_args

import pluggy

from swebench_trainer import hookspecs
from swebench_trainer.errors import PluginError, PluginFault
from swebench_trainer.events import Event, RecipeLoaded
from swebench_trainer.plugins.faults import (
    plugin_call,
    plugin_fault,
    slow_call_logged,
    type_name,
)
from swebench_trainer.plugins.registry import (
    KIND_OF_TABLE,
    Kind,
    Registry,
)
from swebench_trainer.recipe.explain import TableModels
from swebench_trainer.recipe.models import TABLES
from swebench_trainer.types import Instance, Pair

log = logging.getLogger(__name__)

_REGISTRATION_HOOKS: dict[str, Kind] = {
    "register_sources": "source",
    "register_prompt_styles": "prompt style",
    "register_backends": "backend",
    "register_graders": "grader",
    "register_pair_strategies": "pair strategy",
    "register_publishers": "publisher",
}

_KEYS: dict[str, type] = {"drop_instances": str, "drop_pairs": int, "report_rows": str}
"""Key types of the mappings that hooks return."""

MAX_SHOWN = 5
"""Most wrong keys that an error message lists."""


@dataclass(frozen=True)
class BrokenPlugin:
    """An installed plugin that cannot be loaded, with the error."""

    name: str
    origin: str
    error: Exception | SystemExit

    def __str__(self) -> str:
        kind = type(self.error).__name__
        return f"plugin {self.name!r} ({self.origin}) cannot be loaded: {kind}: {self.error}"


class EventObserver:
    """A plugin that passes every event to one function."""

    def __init__(self, receive: Callable[[Event], None]) -> None:
        def hook(event: Event) -> None:
            receive(event)

        for kind in get_args(Event):
            setattr(self, kind.hook, hookspecs.hookimpl(hook))


class Plugins:
    """The loaded plugins: the registry of their implementations, and their hooks.

    Attributes:
        broken: Installed plugins that cannot be loaded.
        origins: Distribution and version of each plugin, by name.
        failures: Number of errors of observers, by plugin and hook.

    Args:
        builtins: Built-in plugins, by name; registered first.
    """

    def __init__(self, builtins: Mapping[str, Any]) -> None:
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.registry = Registry()
        self.broken: list[BrokenPlugin] = []
        self.origins: dict[str, str] = {}
        self.failures: Counter[str] = Counter()
        self._entry_points_loaded = False
        self._recipe: RecipeLoaded | None = None
        for name, plugin in builtins.items():
            version = importlib.metadata.version("swebench-trainer")
            self.add(plugin, name, f"swebench-trainer {version}")

    def add(self, plugin: Any, name: str, origin: str) -> None:
        """Register a plugin and its implementations, or neither.

        Raises:
            PluginError: The plugin's name, or one that it registers, is taken.
            PluginFault: A hook has unknown arguments, or a registration is invalid.
        """
        try:
            self.manager.register(plugin, name)
        except pluggy.PluginValidationError as error:
            raise PluginFault(
                f"Plugin {name!r} ({origin}) does not match the hooks: {error}",
                hint="Compare its arguments with docs/reference/hooks.md.",
            ) from error
        except ValueError as error:  # pluggy's error for a name that is taken
            raise PluginError(
                f"Two plugins are called {name!r}: {self.origins.get(name)} and {origin}.",
                hint="Uninstall one of them.",
            ) from error
        self.origins[name] = origin
        try:
            with self.registry.all_or_nothing():
                self._let_register(name, origin)
        except BaseException:  # whatever plugin code raised: all or nothing
            self.manager.unregister(plugin, name)
            del self.origins[name]
            raise
        self._warn_of_unknown_hooks(plugin, name)
        if self._recipe is not None:
            self._tell(self._recipe, only=name)

    def _let_register(self, name: str, origin: str) -> None:
        for hook, kind in _REGISTRATION_HOOKS.items():
            for _, call in self._each(hook, name):
                call(register=partial(self.registry.add, kind, origin=origin))

    def _warn_of_unknown_hooks(self, plugin: Any, name: str) -> None:
        for hook in self.manager.get_hookcallers(plugin) or ():
            required = any(not one.optionalhook for one in hook.get_hookimpls())
            if required and not hook.has_spec():
                log.warning(
                    "%s implements %s, which this version never calls; it may be "
                    "misspelled, or from another version",
                    self._who(name),
                    hook.name,
                )

    def load_installed(self) -> None:
        """Load the plugins of installed distributions, once.

        One that cannot be imported, or does not match the hooks, is logged and added
        to `broken`; the others still load.

        Raises:
            PluginError: Two plugins register the same name.
        """
        if self._entry_points_loaded:
            return
        self._entry_points_loaded = True
        points = importlib.metadata.entry_points(group=hookspecs.PROJECT)
        for point in sorted(points, key=lambda p: p.name):
            origin = f"{point.dist.name} {point.dist.version}" if point.dist else "?"
            try:
                self.add(point.load(), point.name, origin)
            except (Exception, SystemExit) as error:  # plugin code can raise anything
                if _is_conflict(error):
                    raise
                broken = BrokenPlugin(point.name, origin, error)
                self.broken.append(broken)
                log.warning("%s", broken)

    def tables(self, uses: Iterable[tuple[str, str]] = ()) -> TableModels:
        """The models that validate a recipe's tables.

        Installed plugins are imported only if `uses` names one that is not built in.

        Args:
            uses: Names of tables, each with its value of `use`.

        Raises:
            PluginError: The plugin that the recipe needs is broken.
        """
        for table, use in uses:
            kind = KIND_OF_TABLE.get(table)
            if kind and not self.registry.find(kind, use):
                self.load_installed()
                if not self.registry.find(kind, use):
                    self._raise_if_broken(use)
        kinds = {table: KIND_OF_TABLE.get(table) for table in TABLES}
        return {
            table: {e.name: e.config for e in self.registry if e.kind == kind}
            if kind
            else {"": TABLES[table]}
            for table, kind in kinds.items()
        }

    def _raise_if_broken(self, use: str) -> None:
        for broken in self.broken:
            distribution = broken.origin.split()[0]
            if use in (broken.name, distribution.removeprefix("swebench-trainer-")):
                raise PluginError(
                    f"The recipe uses {use!r}, but {broken}",
                    hint="Fix or reinstall it.",
                ) from broken.error

    def notify(self, event: Event) -> None:
        """Call the hook of an event; errors of observers are only logged and counted.

        `RecipeLoaded` also reaches every plugin that is loaded later.
        """
        if isinstance(event, RecipeLoaded):
            self._recipe = event
        self._tell(event)

    def _tell(self, event: Event, only: str | None = None) -> None:
        for name, call in self._each(event.hook, only):
            try:
                with slow_call_logged(self._who(name), event.hook):
                    call(event=event)
            except (Exception, SystemExit):  # an observer must not end the run
                self._failed(f"plugin {name!r}", event.hook)

    def _who(self, name: str) -> str:
        origin = self.origins.get(name)
        return f"Plugin {name!r} ({origin})" if origin else f"Plugin {name!r}"

    def _failed(self, who: str, hook: str) -> None:
        """Count a failure, and log the current exception the first time."""
        failure = f"{who} failed in {hook}"
        if failure not in self.failures:
            log.exception(failure)
        self.failures[failure] += 1

    def dropped_instances(
        self, instances: Sequence[Instance], stage: str
    ) -> dict[str, str]:
        """Instance ids that plugins drop, with the reasons."""
        known = cache(lambda: {i.instance_id for i in instances})
        given = {"instances": instances, "stage": stage}
        return self._dropped("drop_instances", known, **given)

    def dropped_pairs(self, pairs: Sequence[Pair]) -> dict[int, str]:
        """Positions of pairs that plugins drop, with the reasons."""
        return self._dropped("drop_pairs", lambda: range(len(pairs)), pairs=pairs)

    def _dropped(
        self, hook: str, known: Callable[[], Container[Any]], **arguments: Any
    ) -> dict[Any, str]:
        """Join the reasons of each key that plugins drop.

        Raises:
            PluginFault: A plugin drops a key that it was not given.
        """
        reasons: dict[Any, set[str]] = defaultdict(set)
        for name, result in self._results(hook, **arguments):
            if beyond := [key for key in result if key not in known()]:
                shown = ", ".join(map(repr, beyond[:MAX_SHOWN]))
                rest = len(beyond[MAX_SHOWN:])
                more = f" and {rest} more" if rest else ""
                what = f"drops unknown keys in {hook}: {shown}{more}"
                raise plugin_fault(self._who(name), what)
            for key, reason in result.items():
                reasons[key].add(reason)
        return {key: "; ".join(sorted(texts)) for key, texts in reasons.items()}

    def report_rows(self, run_dir: str) -> dict[str, str]:
        """Rows for the closing report.

        Raises:
            PluginError: Two plugins use the same label.
        """
        rows: dict[str, str] = {}
        owners: dict[str, str] = {}
        for name, result in self._results("report_rows", skip=True, run_dir=run_dir):
            for label, value in result.items():
                if label in rows:
                    raise PluginError(
                        f"Plugins {owners[label]!r} and {name!r} both report {label!r}."
                    )
                rows[label], owners[label] = value, name
        return dict(sorted(rows.items()))

    def _results(
        self, hook: str, *, skip: bool = False, **arguments: Any
    ) -> Iterator[tuple[str, Mapping[Any, str]]]:
        """Each plugin's result that is not `None`, with the plugin's name.

        Args:
            hook: Name of the hook.
            skip: Whether to log and skip a plugin that fails, instead of raising.
            arguments: Arguments of the hook.

        Raises:
            PluginFault: A plugin failed, or returned something other than a mapping
                with keys of the hook's type and texts.
        """
        for name, call in self._each(hook):
            try:
                with plugin_call(self._who(name), hook):
                    results = call(**arguments)
                for result in results:
                    self._check_result(name, hook, result)
            except PluginFault:
                if not skip:
                    raise
                self._failed(f"plugin {name!r}", hook)
            else:
                yield from ((name, result) for result in results)

    def _check_result(self, name: str, hook: str, result: Any) -> None:
        if not isinstance(result, Mapping):
            what = f"returned {type_name(result)} from {hook}, not a mapping"
            raise plugin_fault(self._who(name), what)
        for key, text in result.items():
            for value, wanted in ((key, _KEYS[hook]), (text, str)):
                if type(value) is bool or not isinstance(value, wanted):
                    what = f"returned {type_name(value)} in {hook}, not a {wanted.__name__}"
                    raise plugin_fault(self._who(name), what)

    def _each(
        self, hook: str, only: str | None = None
    ) -> Iterator[tuple[str, pluggy.HookCaller]]:
        """Each plugin (or `only` one) that implements a hook, with its own caller."""
        everyone = self.manager.get_plugins()
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            name = implementation.plugin_name
            if only in (None, name):
                others = [p for p in everyone if p is not implementation.plugin]
                yield name, self.manager.subset_hook_caller(hook, others)


def _is_conflict(error: BaseException) -> bool:
    """Whether two plugins use the same name, which is neither plugin's fault."""
    return isinstance(error, PluginError) and not isinstance(error, PluginFault)
