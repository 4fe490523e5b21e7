"""Names of Python tests, as pytest, unittest, Django, and sympy report them."""

from __future__ import annotations

import re
from collections.abc import Iterable
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
            return cls(name, function, place, ".".join(owners))
        if found := _UNITTEST.match(name):
            function = found["function"]
            place = found["place"].removesuffix(f".{function}")
            module, _, owner = place.rpartition(".")
            return cls(name, function, module, owner)
        return cls(name, base if _BARE.match(base) else "")

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

    def functions(self) -> Iterable[str]:
        """The names of the functions that are known."""
        return self._functions

    def of_function(
        self, path: str, owner: str | None, function: str, docstring: str = ""
    ) -> list[tuple[str, ...]]:
        """The names that tests of a function may have.

        Args:
            path: The file that defines it.
            owner: Its class, empty for a function of the module, `None` if not known.
            function: Its name.
            docstring: Its docstring; unittest reports the first line in place of a name.

        Returns:
            Sets of names, the likeliest first, each with a FAIL_TO_PASS test. There is
            more than one if a class whose base is not visible may inherit the test.
        """
        found = [n for n in self._functions.get(function, ()) if n.in_file(path)]
        own = [n for n in found if owner in (n.owner, None)]
        if owner:
            # A nested class is visible only by its last name.
            own = own or [n for n in found if (n.owner or "").endswith(f".{owner}")]
        first_line = docstring.strip().partition("\n")[0].strip()
        told = self._functions.get(first_line, []) if first_line else []
        inherited = found if owner or owner is None else []
        sets = [own, told, inherited]
        names = (tuple(sorted(name.name for name in some)) for some in sets)
        return [
            some for some in dict.fromkeys(names) if self._wanted.intersection(some)
        ]


def _ends_with(text: str, end: str, separator: str) -> bool:
    return text == end or text.endswith(separator + end)
