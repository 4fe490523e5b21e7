"""Who offers what: (kind, name) → factory, config model, origin."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from swebench_trainer.errors import PluginError, PluginFault
from swebench_trainer.plugins.faults import described, faults_of
from swebench_trainer.plugins.guard import GuardedPlugin
from swebench_trainer.plugins.watchdog import Watchdog
from swebench_trainer.recipe.models import TABLES, Table

Kind = Literal[
    "source", "prompt style", "backend", "grader", "pair strategy", "publisher"
]

KIND_OF_TABLE: dict[str, Kind] = {
    "data": "source",
    "prompt": "prompt style",
    "model": "backend",
    "grade": "grader",
    "pairs": "pair strategy",
    "publish": "publisher",
}
"""The tables of a recipe that name a plugin, and the kind that they name."""

DISTRIBUTION = "swebench-trainer"
"""The distribution that the built-in implementations come with."""

_TABLE_OF_KIND = {kind: table for table, kind in KIND_OF_TABLE.items()}


@dataclass(frozen=True)
class Entry:
    """One registered implementation.

    Attributes:
        config: Model of the recipe's table, a subclass of the kind's base table.
        origin: Distribution and version that it came with.
    """

    kind: Kind
    name: str
    factory: Callable[[Any], Any]
    config: type[Table]
    summary: str
    origin: str

    @property
    def who(self) -> str:
        """The implementation and where it comes from, for people."""
        return f"{self.kind.capitalize()} {self.name!r} of {self.origin}"

    @property
    def slug(self) -> str:
        """Its kind as command lines write it."""
        return self.kind.replace(" ", "-")

    @property
    def ours(self) -> bool:
        """Whether it is built in: what it raises is then a mistake of ours."""
        return self.origin.split()[0] == DISTRIBUTION


class Registry:
    """What the plugins have registered.

    Args:
        watchdog: Watches the calls of what is created.
    """

    def __init__(self, watchdog: Watchdog | None = None) -> None:
        self._watchdog = watchdog or Watchdog()
        self._entries: dict[tuple[Kind, str], Entry] = {}

    def __iter__(self) -> Iterator[Entry]:
        return iter(sorted(self._entries.values(), key=lambda e: (e.kind, e.name)))

    def add(
        self,
        kind: Kind,
        name: str,
        factory: Callable[[Any], Any],
        *,
        config: type[Table] | None = None,
        summary: str = "",
        origin: str,
    ) -> None:
        """Adds an implementation.

        Raises:
            PluginError: The name is taken (both origins are named).
            PluginFault: The config model does not extend the table's base model,
                or what is registered is no name with a factory.
        """
        if not (isinstance(name, str) and name and callable(factory)):
            raise PluginFault(
                f"{origin} registers the {kind} {name!r} with {described(factory)}.",
                hint="It takes a name and a factory: register('name', MyClass, …)",
            )
        base = TABLES[_TABLE_OF_KIND[kind]]
        config = config or base
        if not (isinstance(config, type) and issubclass(config, base)):
            raise PluginFault(
                f"{kind} {name!r} of {origin} has a config model that does not extend {base.__name__}.",
                hint=f"Derive it: class {name.title().replace('-', '')}({base.__name__}): …",
            )
        taken = self._entries.get((kind, name))
        if taken:
            raise PluginError(
                f"Two plugins offer the {kind} {name!r}: {taken.origin} and {origin}.",
                hint="Uninstall one of them.",
            )
        self._entries[kind, name] = Entry(kind, name, factory, config, summary, origin)

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Takes back what is added in the body of the `with` if that raises."""
        before = dict(self._entries)
        try:
            yield
        except BaseException:
            self._entries = before
            raise

    def names(self, kind: Kind) -> list[str]:
        """Registered names of a kind, sorted."""
        return sorted(name for k, name in self._entries if k == kind)

    def find(self, kind: Kind, name: str) -> Entry | None:
        """The implementation of that name, or `None`."""
        return self._entries.get((kind, name))

    def get(self, kind: Kind, name: str) -> Entry:
        """The implementation of that name.

        Raises:
            PluginError: There is none; the message has the names that there are.
        """
        entry = self.find(kind, name)
        if entry is None:
            raise PluginError(
                f"There is no {kind} {name!r}.", hint=self.suggestion(kind, name)
            )
        return entry

    def suggestion(self, kind: Kind, name: str) -> str:
        """What could have been meant, and how to get more."""
        names = self.names(kind)
        close = difflib.get_close_matches(name, names, 1)
        meant = f"Did you mean {close[0]!r}? " if close else ""
        return f"{meant}Installed: {', '.join(names) or 'none'}. Others come as distributions called swebench-trainer-NAME."

    def create(self, kind: Kind, table: Any) -> Any:
        """Calls the factory that `table.use` names with the table.

        What is not built in comes back held to its contract (`plugins.guard`).

        Raises:
            PluginFault: The factory has failed, or returned something else.
        """
        entry = self.get(kind, table.use)
        if entry.ours:
            return entry.factory(table)
        who = f"{entry.who} in its factory"
        with (
            self._watchdog.watching(who, self._watchdog.call_patience),
            faults_of(entry.who, "its factory"),
        ):
            made = entry.factory(table)
        return GuardedPlugin(made, kind, entry.who, self._watchdog, table)
