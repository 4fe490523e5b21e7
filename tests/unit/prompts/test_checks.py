"""Facts about patches that are known without running them."""

from __future__ import annotations

import json

import pytest
from damage import Memory, between
from shorthand import tree_of

from swebench_trainer.answers.candidates import to_candidate
from swebench_trainer.answers.checks import (
    CheckCounts,
    check_counts,
    check_files,
    static_checks,
)
from swebench_trainer.contracts import Sample
from swebench_trainer.patches.files import ChangedFiles, File, Text
from swebench_trainer.recipe.models import PromptTable
from swebench_trainer.store.jsonl import dump
from swebench_trainer.types import Candidate, StaticChecks, as_row, from_row

BASE = {"a.py": b"x = 1\n", "two.py": b"print 1\n", "b.txt": b"(\n"}


def checked(new: dict[str, bytes]) -> StaticChecks:
    return static_checks(between(BASE, new).patch, Memory(BASE))


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({"a.py": b"x = 2\n"}, []),
        ({"a.py": b"x = (\n"}, ["a.py"]),
        ({"a.py": b"x = '\\d'\n"}, []),  # warned of, but read
        ({"n.py": b"if\n"}, ["n.py"]),
        ({"a.py": b"if\n", "n.py": b"if\n"}, ["a.py", "n.py"]),
        ({"two.py": b"print 2\n"}, []),  # could not be read before
        ({"b.txt": b"((\n"}, []),
    ],
)
def test_files_broken_by_the_patch_are_named(change, broken) -> None:
    expected = StaticChecks(applies=True, unparsable=tuple(broken))
    assert checked(BASE | change) == expected


def test_a_broken_file_is_compared_with_its_old_path_after_a_rename() -> None:
    base = {"a.py": b"print 1\n" + b"z = 1\n" * 20}
    patch = between(base, {"b.py": base["a.py"] + b"w = 1\n"}).patch
    assert "rename to" in patch
    assert static_checks(patch, Memory(base)) == StaticChecks(applies=True)


def test_a_deleted_file_needs_no_parsing() -> None:
    without = {path: BASE[path] for path in BASE if path != "a.py"}
    assert checked(without) == StaticChecks(applies=True)


def test_a_patch_that_does_not_apply_is_recognized() -> None:
    patch = between(BASE, BASE | {"a.py": b"y\n"}).patch
    checks = static_checks(patch, Memory({"a.py": b"other\n"}))
    assert checks == StaticChecks(applies=False)


@pytest.mark.parametrize(
    "patch",
    [
        "--- a/../x\n+++ b/../x\n@@ -1 +1 @@\n-x\n+y\n",
        "diff --git a/x b/x\nGIT binary patch\n",
        "diff --git a/x b/x\nnew file mode 100644\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+\ud800\n",
    ],
)
def test_unsafe_binary_and_unwritable_patches_are_not_checked(patch) -> None:
    assert static_checks(patch, Memory(BASE)) == StaticChecks()


@pytest.mark.parametrize(
    "content",
    [b"\0", b"\xff\xfe", b"(" * 5000, b"-" * 100_000 + b"1", b"x = " + b"[" * 500],
)
def test_no_content_makes_the_checks_fail(content) -> None:
    file = File(Text.decoded(content))
    files = ChangedFiles({}, {"a.py": file, "a.unknown": file})
    checks = check_files(files)
    assert checks.applies and set(checks.unparsable) <= {"a.py"}


def test_candidates_carry_their_checks(workshop) -> None:
    instance = workshop.instance({"a.py": b"x = 1\n"}, {"a.py": b"x = (\n"})
    sample = Sample(instance.instance_id, 0, instance.patch)
    candidate = to_candidate(
        PromptTable(answer="diff"), sample, instance, tree_of(instance), "m"
    )
    assert candidate.checks == StaticChecks(applies=True, unparsable=("a.py",))
    row = json.loads(dump(as_row(candidate)))
    assert from_row(Candidate, row) == candidate


def test_checks_are_counted_per_candidate() -> None:
    checks = [
        StaticChecks(),
        StaticChecks(applies=True),
        StaticChecks(applies=False),
        StaticChecks(applies=True, unparsable=("a.py", "b.py")),
        StaticChecks(applies=True, unparsable=("a.py",)),
    ]
    candidates = [Candidate("i", 0, "m", "", "", checks=check) for check in checks]
    assert check_counts(candidates) == CheckCounts(checked=4, refused=1, unparsable=2)
    assert check_counts([]) == CheckCounts()
