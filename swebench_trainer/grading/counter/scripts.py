"""Eval scripts that put changed test files in place.

Most scripts apply the test patch from a here-document; the derived script has another
patch there and is otherwise the same. Scripts that check the test files out (SWE-bench
Pro) apply a small patch right after that. No program is used that the script does not
use already, and no name says that the tests are changed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from swebench_trainer.grading.counter.test_files import Edits, TestPatch
from swebench_trainer.types import Instance

_APPLY = re.compile(
    r"^git apply [^\n]*<<'(?P<end>\w+)'\n(?P<patch>.*?\n)(?P=end)$",
    re.MULTILINE | re.DOTALL,
)
_CHECKOUT = re.compile(r"^git checkout (?P<words>[^\n]*)$", re.MULTILINE)
_END = "EOF_114329324912"
"""The delimiter that the harness's scripts use."""


@dataclass(frozen=True)
class TestScript:
    """An eval script and the test patch that it puts in place.

    Attributes:
        before: The script up to the place where the tests are put in place or changed.
        after: The rest of the script.
        patch: The test patch.
        applies: Whether the script applies the patch between the two parts; else the
            files are already in place there.
    """

    __test__ = False

    before: str
    after: str
    patch: str
    applies: bool

    @classmethod
    def of(cls, instance: Instance) -> TestScript | None:
        """Find the place in an instance's script; `None` if there is none."""
        from swebench.harness.constants import START_TEST_OUTPUT

        script = instance.eval_script
        setup = script.partition(START_TEST_OUTPUT)[0]
        applied = [m for m in _APPLY.finditer(setup) if "diff --git " in m["patch"]]
        if len(applied) == 1:
            start, end = applied[0].span("patch")
            return cls(script[:start], script[end:], applied[0]["patch"], applies=True)
        checkouts = [m for m in _CHECKOUT.finditer(setup) if _names(m, instance)]
        if applied or not checkouts:
            return None
        end = checkouts[-1].end() + 1
        return cls(script[:end], script[end:], instance.test_patch, applies=False)

    def with_changes(
        self, patch: TestPatch, edits: Edits, ends: Mapping[str, str]
    ) -> str:
        """The script that leaves changed tests in place.

        Args:
            patch: The test patch of this script.
            edits: The changed lines.
            ends: Text to append to files, by path.
        """
        appended = "".join(_append(path, text) for path, text in ends.items())
        if self.applies:
            end, newline, rest = self.after.partition("\n")
            changed = patch.edited(edits)
            return f"{self.before}{changed}{end}{newline}{appended}{rest}"
        changed = patch.on_top(edits)
        apply = f"git apply -v - <<'{_END}'\n{changed}{_END}\n" if changed else ""
        return f"{self.before}{apply}{appended}{self.after}"


def _append(path: str, text: str) -> str:
    """A command that appends to a file with nothing but the shell."""
    lines = " ".join(shlex.quote(line) for line in text.split("\n"))
    return f"printf '%s\\n' {lines} >> {shlex.quote(path)}\n"


def _names(checkout: re.Match[str], instance: Instance) -> bool:
    """Whether a command checks out files of the test patch."""
    try:
        words = shlex.split(checkout["words"])
    except ValueError:
        return False
    return any(path in words for path in TestPatch(instance.test_patch).files)
