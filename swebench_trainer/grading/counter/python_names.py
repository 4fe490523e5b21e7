"""Names of Python tests, as pytest, unittest, Django, and sympy report them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from swebench_trainer.types import Instance

_UNITTEST = re.compile(r"(?P<function>\w+) \((?P<place>[\w.]+)\)")
_BARE = re.compile(r"\w+\Z")


@dataclass(frozen=True)
class PythonName:
    """The parts of a test's name; empty where the name does not have them.

    Attributes:
        name: The whole name.
        place: The path or the module.
        owner: The class, with dots if nested.
    """

    name: str
    function: str
    place: str = ""
    owner: str | None = None

    @classmethod
    def of(cls, name: str) -> PythonName:
        """Split a name; one that is a docstring has no function."""
        base = name.split("[", 1)[0]
        if "::" in base:
            place, *owners, function = base.split("::")
            if not place.endswith(".py"):
                return cls(name, "")  # of another language
            return cls(name, function, place, ".".join(owners))
        if found := _UNITTEST.match(name):
            function = found["function"]
            place = found["place"].removesuffix(f".{function}")
            module, _, owner = place.rpartition(".")
            return cls(name, function, module, owner)
        return cls(name, base if _BARE.match(base) else "")

    def renamed(self, function: str) -> str:
        """The name that a test of the same class and file would have."""
        base = self.name.split("[", 1)[0]
        if "::" in base:
            return f"{base.rpartition('::')[0]}::{function}"
        if found := _UNITTEST.match(self.name):
            place = found["place"]
            if place.endswith(f".{self.function}"):
                place = f"{place.removesuffix(self.function)}{function}"
            return f"{function} ({place})"
        return function

    def in_class(self, owner: str) -> PythonName:
        """The name that the test would have in a class of the same file, or in none."""
        if "::" in self.name:
            name = "::".join(filter(None, (self.place, owner, self.function)))
        elif self.place:
            new_style = _UNITTEST.match(self.name)
            parts = [self.place, owner]
            if new_style and new_style["place"].endswith(f".{self.function}"):
                parts.append(self.function)
            name = f"{self.function} ({'.'.join(parts)})"
        else:
            name = self.function
        return PythonName(name, self.function, self.place, owner)

    def likely_paths(self, others: Iterable[str]) -> list[str]:
        """The path of the test's file, by its name and the paths of related files."""
        if "::" in self.name:
            return [self.place]
        parts = self.place.split(".")
        for other in others:
            folders = other.split("/")
            if parts[0] in folders:
                root = folders[: folders.index(parts[0])]
                return ["/".join([*root, *parts]) + ".py"]
        return []

    def in_file(self, path: str) -> bool:
        """Whether the test may be in a file, by the path or module in its name."""
        if not self.place:
            return True
        if self.place.endswith(".py"):
            return _ends_with(path, self.place, "/") or _ends_with(
                self.place, path, "/"
            )
        return _ends_with(path.removesuffix(".py").replace("/", "."), self.place, ".")


class PythonNames:
    """The expected tests of an instance, found by their place in the source."""

    def __init__(self, instance: Instance) -> None:
        expected = (*instance.FAIL_TO_PASS, *instance.PASS_TO_PASS)
        self._wanted = frozenset(instance.FAIL_TO_PASS)
        self._functions: dict[str, list[PythonName]] = {}
        for name in map(PythonName.of, dict.fromkeys(expected)):
            self._functions.setdefault(name.function or name.name, []).append(name)
        self._named_by_docstring = any(
            not name.function for tests in self._functions.values() for name in tests
        )

    def may_have(self, function: str) -> bool:
        """Whether a function may be an expected test, by its name."""
        told = self._named_by_docstring and function.startswith("test")
        return told or function in self._functions

    def files(self, visible: Collection[str]) -> list[tuple[PythonName, str]]:
        """Files with expected tests, preferably of FAIL_TO_PASS, each with one test.

        Args:
            visible: Paths of the test patch.
        """
        shown = [path for path in visible if path.endswith(".py")]
        names = [name for tests in self._functions.values() for name in tests]
        wanted = [name for name in names if name.name in self._wanted]
        found: dict[str, PythonName] = {}
        for some in (wanted, names):
            for name in some:
                if not found and name.function:
                    here = [path for path in shown if name.in_file(path)]
                    paths = here or name.likely_paths(visible)
                    found.update((path, name) for path in paths)
        return [(name, path) for path, name in found.items()]

    def of_function(
        self, path: str, owner: str | None, function: str, docstring: str = ""
    ) -> tuple[PythonName, ...]:
        """The names that tests of a function may have.

        Args:
            path: The file that defines it.
            owner: Its class, empty for a function of the module, `None` if not known.
            function: Its name.
            docstring: Its docstring; unittest reports the first line in place of a name.

        Returns:
            The expected tests; none if the function is not known.
        """
        found = [n for n in self._functions.get(function, ()) if n.in_file(path)]
        own = [n for n in found if n.owner in (owner, None)]
        if owner and not own:
            # A nested class is visible only by its last name.
            own = [n for n in found if (n.owner or "").endswith(f".{owner}")]
        first_line = docstring.strip().partition("\n")[0].strip()
        told = self._functions.get(first_line, []) if first_line else []
        # A class of which no test is expected is the base of others.
        return tuple(own or told or (found if owner != "" else []))

    def wants(self, names: Iterable[PythonName]) -> bool:
        """Whether one of the tests is in FAIL_TO_PASS."""
        return any(name.name in self._wanted for name in names)


def _ends_with(text: str, end: str, separator: str) -> bool:
    return text == end or text.endswith(separator + end)
