"""Each mutation does what its name says, checked with the harness's commands."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mutations import LATIN_1, MUTATIONS, WorkTree
from tiny import base_commit

BASE = """\
\"\"\"Sums, and more than one of them.\"\"\"


def add(a, b):
    return a - b


def double(a):
    return 2 * a


def power(a, n):
    result = 1
    for _ in range(n):
        result *= a
    return result


def is_even(a):
    return a % 2 == 1


def half(a):
    return a // 2
"""
FIXED = BASE.replace("a - b", "a + b").replace("== 1", "== 0")

GIT, THREE_WAY, REJECT, PATCH, REVERSED, NOTHING = range(6)
"""The step that accepts a patch: one of four commands, the last check, or none."""

ACCEPTED_BY = dict.fromkeys(MUTATIONS, GIT) | {
    "hunk_too_long": NOTHING,
    "hunk_too_short": PATCH,
    "shifted_context": PATCH,
    "crlf_patch": PATCH,
    "no_last_newline": PATCH,
    "no_prefixes": NOTHING,
    "doubled": THREE_WAY,
    "reversed_gold": THREE_WAY,
    "already_applied": REVERSED,
    "leaves_rejects": NOTHING,
    "outside": NOTHING,
    "whitespace": NOTHING,
    "no_diff": NOTHING,
}
UNWRITABLE = "lone_surrogate"


@pytest.fixture
def work(tmp_path: Path) -> WorkTree:
    root = tmp_path / "work"
    (root / "sums").mkdir(parents=True)
    (root / "sums/sums.py").write_text(BASE)
    (root / "README.md").write_text("# Sums\n\nThey add up.\n")
    base_commit(root)
    (root / "sums/sums.py").write_text(FIXED)
    return WorkTree(root, WorkTree(root, "").diff())


def apply_attempts(
    work: WorkTree, patch: str
) -> Iterator[subprocess.CompletedProcess[bytes]]:
    """Apply a patch as `run_instance` does; yield each attempt."""
    from swebench.harness.run_evaluation import GIT_APPLY_CMDS

    work.reset()
    file = work.root.parent / "patch.diff"
    file.write_bytes(patch.encode("utf-8", "surrogateescape"))
    for command in [*GIT_APPLY_CMDS, "git apply --check --reverse"]:
        if command in GIT_APPLY_CMDS[1:]:
            subprocess.run(["git", "checkout", "-q", "--", "."], cwd=work.root)
            subprocess.run(["git", "clean", "-fdq"], cwd=work.root)
        arguments = [*shlex.split(command), str(file)]
        yield subprocess.run(arguments, cwd=work.root, capture_output=True)


def accepted_by(work: WorkTree, patch: str) -> int:
    """Number of the attempt that accepts the patch; `work` has the result."""
    for number, done in enumerate(apply_attempts(work, patch)):
        if done.returncode == 0:
            return number
    return NOTHING


def test_there_are_more_than_twelve() -> None:
    assert len(MUTATIONS) > 12


@pytest.mark.parametrize("name", sorted(MUTATIONS.keys() - {UNWRITABLE}))
def test_the_expected_command_accepts_the_mutation(work: WorkTree, name: str) -> None:
    patch = made(work, name)
    assert accepted_by(work, patch) == ACCEPTED_BY[name]


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_mutations_are_reproducible_and_differ_from_gold(
    work: WorkTree, name: str
) -> None:
    patch = made(work, name)
    assert patch == made(work, name)
    assert patch != work.gold


def made(work: WorkTree, name: str) -> str:
    work.reset()
    return MUTATIONS[name](work)


def applied(work: WorkTree, name: str) -> Path:
    """The files after a mutation is applied."""
    assert accepted_by(work, made(work, name)) != NOTHING
    return work.root


def value_of(source: Path, expression: str) -> object:
    values: dict[str, object] = {}
    exec(source.read_bytes(), values)
    return eval(expression, values)


def test_gold_fixes_both_faults(work: WorkTree) -> None:
    assert accepted_by(work, work.gold) == GIT
    assert value_of(work.source, "(add(2, 3), is_even(4))") == (5, True)
    assert len(list(work.added_lines())) == 2


def test_a_wrong_fix_runs_and_fails(work: WorkTree) -> None:
    applied(work, "wrong_fix")
    assert value_of(work.source, "(add(2, 3), is_even(4))") != (5, True)


def test_half_a_fix_fixes_one_fault(work: WorkTree) -> None:
    applied(work, "half_fix")
    assert value_of(work.source, "(add(2, 3), is_even(4))") == (5, False)


def test_half_of_one_hunk_fixes_nothing(work: WorkTree) -> None:
    one = WorkTree(work.root, made(work, "half_fix"))
    applied(one, "half_fix")
    assert value_of(one.source, "(add(2, 3), is_even(4))") == (-1, False)


@pytest.mark.parametrize("name", ["no_change", "reversed_gold", "already_applied"])
def test_mutations_without_a_fix_fix_nothing(work: WorkTree, name: str) -> None:
    applied(work, name)
    assert value_of(work.source, "(add(2, 3), is_even(4))") == (-1, False)


def test_the_syntax_error_mutation_does_not_compile(work: WorkTree) -> None:
    applied(work, "syntax_error")
    with pytest.raises(SyntaxError):
        value_of(work.source, "add(2, 3)")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("rename", "rename to RENAMED"),
        ("renamed_source", "rename to sums/sums_renamed.py"),
        ("mode_only", "new mode 100755"),
        ("new_file", "new file mode 100644"),
        ("empty_file", "py.typed"),
        ("deleted_source", "deleted file mode 100644"),
        ("binary", "GIT binary patch"),
        ("symlink", "new file mode 120000"),
        ("quoted_paths", '"b/tab\\there.txt"'),
        ("crlf_file", "+    return a + b\r\n"),
        ("file_without_newline", "\\ No newline at end of file"),
        ("ignored_file", "b/some.ignored"),
        ("latin1_patch", LATIN_1.decode("utf-8", "surrogateescape")),
        ("submodule", "new file mode 160000"),
    ],
)
def test_the_patch_contains_the_expected_text(
    work: WorkTree, name: str, says: str
) -> None:
    assert says in made(work, name)


def test_a_mode_change_changes_nothing_else(work: WorkTree) -> None:
    assert "@@" not in made(work, "mode_only")


def test_a_crlf_patch_produces_lf_files(work: WorkTree) -> None:
    applied(work, "crlf_patch")
    assert b"\r" not in work.source.read_bytes()


def test_a_crlf_file_has_only_crlf_line_endings(work: WorkTree) -> None:
    applied(work, "crlf_file")
    content = work.source.read_bytes()
    assert content.count(b"\n") == content.count(b"\r\n") == FIXED.count("\n")


def test_the_latin_1_patch_cannot_be_written_as_utf_8(work: WorkTree) -> None:
    with pytest.raises(UnicodeEncodeError):
        made(work, "latin1_patch").encode()


def test_the_latin_1_file_is_in_the_diff_and_not_in_the_patch(work: WorkTree) -> None:
    assert made(work, "latin1_file").isascii()
    applied(work, "latin1_file")
    assert work.bystander.read_bytes() == LATIN_1
    diff = work.git("diff", "--", work.bystander.name)
    with pytest.raises(UnicodeEncodeError):
        diff.encode()


def test_a_lone_surrogate_cannot_be_encoded(work: WorkTree) -> None:
    with pytest.raises(UnicodeEncodeError):
        made(work, UNWRITABLE).encode("utf-8", "surrogateescape")


def test_reject_files_remain_next_to_a_partial_patch(work: WorkTree) -> None:
    attempts = apply_attempts(work, made(work, "leaves_rejects"))
    for _ in range(REJECT + 1):
        next(attempts)
    assert value_of(work.source, "add(2, 3)") == 5
    assert (work.root / "README.md.rej").exists()


def test_nothing_is_written_outside(work: WorkTree) -> None:
    assert accepted_by(work, made(work, "outside")) == NOTHING
    assert not (work.root.parent / "outside.txt").exists()


def test_unusual_file_names_are_applied(work: WorkTree) -> None:
    root = applied(work, "quoted_paths")
    assert {'a "name".txt', "tab\there.txt", "naïve.txt", "back\\slash.txt"} <= {
        path.name for path in root.iterdir()
    }
