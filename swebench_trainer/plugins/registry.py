"""The registered implementations: (kind, name) → factory, config model, origin."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, overload

from swebench_trainer import contracts
from swebench_trainer.errors import PluginError, PluginFault
from swebench_trainer.plugins.faults import plugin_call, type_name
from swebench_trainer.plugins.guard import GuardedPlugin
from swebench_trainer.recipe import models

Kind = Literal[
    "source", "prompt style", "backend", "grader", "pair strategy", "publisher"
]

TableT = TypeVar("TableT", bound=models.PluginTable)

KIND_OF_TABLE: dict[str, Kind] = {
    "data": "source",
    "prompt": "prompt style",
    "model": "backend",
    "grade": "grader",
    "pairs": "pair strategy",
    "publish": "publisher",
}
"""Recipe tables that name a plugin, with the kind of the plugin."""

DISTRIBUTION = "swebench-trainer"
"""The distribution of the built-in implementations."""

BASE_OF_KIND = {kind: models.TABLES[table] for table, kind in KIND_OF_TABLE.items()}
"""Base model of the tables that name a plugin of each kind."""


@dataclass(frozen=True)
class Implementation:
    """One registered implementation.

    Attributes:
        config: Model of the recipe's table, a subclass of the kind's base table.
        origin: Distribution and version that registered it.
    """

    kind: Kind
    name: str
    factory: Callable[[Any], Any]
    config: type[models.Table]
    summary: str
    origin: str

    @property
    def who(self) -> str:
        """The implementation with its origin, for messages."""
        return f"{self.kind.capitalize()} {self.name!r} of {self.origin}"

    @property
    def slug(self) -> str:
        """Its kind in the form that command lines use."""
        return self.kind.replace(" ", "-")

    @property
    def is_builtin(self) -> bool:
        """Whether it comes with this distribution; its errors are then our own bugs."""
        return self.origin.split()[0] == DISTRIBUTION


class Registry:
    """The implementations that plugins have registered, by kind and name."""

    def __init__(self) -> None:
        self._entries: dict[tuple[Kind, str], Implementation] = {}

    def __iter__(self) -> Iterator[Implementation]:
        return iter(sorted(self._entries.values(), key=lambda e: (e.kind, e.name)))

    def add(
        self,
        kind: Kind,
        name: str,
        factory: Callable[[Any], Any],
        *,
        config: type[models.Table] | None = None,
        summary: str = "",
        origin: str,
    ) -> None:
        """Add an implementation.

        Raises:
            PluginError: The name is taken (the message names both origins).
            PluginFault: The config model does not extend the table's base model,
                or the name or the factory is not one.
        """
        if not (isinstance(name, str) and name and callable(factory)):
            raise PluginFault(
                f"{origin} registers the {kind} {name!r} with {type_name(factory)}.",
                hint="Pass a name and a factory: register('name', MyClass, …)",
            )
        base = BASE_OF_KIND[kind]
        config = config or base
        if not (isinstance(config, type) and issubclass(config, base)):
            raise PluginFault(
                f"The config model of {kind} {name!r} of {origin} does not extend "
                f"{base.__name__}.",
                hint="Derive it: "
                f"class {name.title().replace('-', '')}({base.__name__}): …",
            )
        if taken := self.find(kind, name):
            raise PluginError(
                f"Two plugins offer the {kind} {name!r}: {taken.origin} and {origin}.",
                hint="Uninstall one of them.",
            )
        summary = summary or (factory.__doc__ or "").partition("\n")[0].rstrip(".")
        self._entries[kind, name] = Implementation(
            kind, name, factory, config, summary, origin
        )

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Remove implementations added in the `with` body if it raises."""
        before = dict(self._entries)
        try:
            yield
        except BaseException:  # whatever the body raised
            self._entries = before
            raise

    def names(self, kind: Kind) -> list[str]:
        """Registered names of a kind, sorted."""
        return sorted(name for k, name in self._entries if k == kind)

    def find(self, kind: Kind, name: str) -> Implementation | None:
        """The implementation with that name, or `None`."""
        return self._entries.get((kind, name))

    def get(self, kind: Kind, name: str) -> Implementation:
        """The implementation with that name.

        Raises:
            PluginError: No plugin offers it; the hint lists the installed names.
        """
        if entry := self.find(kind, name):
            return entry
        names = self.names(kind)
        close = difflib.get_close_matches(name, names, 1)
        meant = f"Did you mean {close[0]!r}? " if close else ""
        raise PluginError(
            f"No {kind} is called {name!r}.",
            hint=f"{meant}Installed: {', '.join(names) or 'none'}. Packages called "
            "swebench-trainer-NAME add more.",
        )

    def config(self, base: type[TableT], name: str) -> type[TableT]:
        """The config model of the implementation with that name.

        Args:
            base: Base table of its kind, such as `GradeTable`.
            name: Value of `use` in a recipe.

        Raises:
            PluginError: No plugin offers it.
        """
        config = self.get(_kind_of(base), name).config
        assert issubclass(config, base)  # see `add`
        return config

    @overload
    def create(self, table: models.DataTable) -> contracts.Source: ...

    @overload
    def create(self, table: models.PromptTable) -> contracts.PromptStyle: ...

    @overload
    def create(self, table: models.ModelTable) -> contracts.Backend: ...

    @overload
    def create(self, table: models.GradeTable) -> contracts.Grader: ...

    @overload
    def create(self, table: models.PairsTable) -> contracts.PairStrategy: ...

    @overload
    def create(self, table: models.PublishTable) -> contracts.Publisher: ...

    def create(self, table: models.PluginTable) -> Any:
        """Call the factory that `table.use` names, with the table.

        Third-party implementations come back checked against their contract, see
        `GuardedPlugin`.

        Raises:
            PluginFault: The factory failed, or its result misses a required method.
        """
        entry = self.get(_kind_of(type(table)), table.use)
        if entry.is_builtin:
            return entry.factory(table)
        with plugin_call(entry.who, "its factory"):
            created = entry.factory(table)
        return GuardedPlugin(created, entry.kind, entry.who)


def _kind_of(table: type[models.PluginTable]) -> Kind:
    return next(kind for kind, base in BASE_OF_KIND.items() if issubclass(table, base))
