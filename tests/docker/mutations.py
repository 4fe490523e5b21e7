"""Patches as models write them: the gold patch of a real repository, altered in one way.

Each function of `MUTATIONS` receives a work tree at the base commit and makes one
patch: with git where git can produce it, otherwise by editing the text of a patch.
The graders decide its verdict; `test_mutations.py` checks that each mutation does what
its name says.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tiny import base_commit
from unidiff import PatchSet

HUNK = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@", re.MULTILINE)
UNRELATED_FILES = ("README*", "LICENSE*", "CHANGE*", "HISTORY*", "AUTHORS*")
LATIN_1 = "Déjà vu à la crème brûlée\n".encode("latin-1")


class WorkTree:
    """A repository at an instance's base commit, with the gold patch.

    Args:
        root: The repository, whose HEAD is the base commit. It is changed.
        gold: The gold patch.
    """

    def __init__(self, root: Path, gold: str) -> None:
        self.root = root
        self.gold = gold

    @property
    def source(self) -> Path:
        """The first Python file that gold changes."""
        paths = (file.path for file in PatchSet(self.gold) if file.is_modified_file)
        return self.root / next(path for path in paths if path.endswith(".py"))

    @property
    def bystander(self) -> Path:
        """A text file that neither gold nor any test touches."""
        found = (p for glob in UNRELATED_FILES for p in sorted(self.root.glob(glob)))
        return next(path for path in found if path.is_file())

    def added_lines(self) -> Iterator[int]:
        """Numbers of the lines that gold adds to `source`, from 0."""
        for file in PatchSet(self.gold):
            if self.root / file.path == self.source:
                for hunk in file:
                    yield from (n.target_line_no - 1 for n in hunk if n.is_added)

    def reset(self) -> None:
        """Reset the repository to the base commit."""
        self.git("reset", "-q", "--hard")
        self.git("clean", "-q", "-ffdx")
        (self.root / ".git/info/attributes").unlink(missing_ok=True)

    def with_gold(self, change: Callable[[], object]) -> str:
        """The patch of gold with a further change."""
        self.git("apply", "-", given=self.gold)
        change()
        return self.diff()

    def diff(self, *options: str) -> str:
        """Everything that differs from the base commit, as a patch."""
        self.git("add", "--all", "--force")
        return self.git("diff", "--cached", "--binary", *options, "HEAD")

    def git(self, *arguments: str, given: str = "") -> str:
        """Output of git, with undecodable bytes as surrogates."""
        neutral = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.root,
            env=os.environ | neutral,
            input=given.encode("utf-8", "surrogateescape"),
            capture_output=True,
            check=True,
        )
        return done.stdout.decode("utf-8", "surrogateescape")


# --- Another fix, or none -------------------------------------------------------------

ALTERATIONS = (
    (r"\bif (.+):$", r"if not (\1):"),
    (r" == ", " != "),
    (r"\bTrue\b", "False"),
    (r"\breturn .+$", "return None"),
    (r"(\w)(['\"])", r"\1x\2"),
    (r"= .+$", "= None"),
    (r"\S.*$", "pass"),
)


def wrong_fix(work: WorkTree) -> str:
    """Gold with one wrong line."""

    def alter() -> None:
        text = work.source.read_bytes().decode()
        work.source.write_bytes(_altered(text, list(work.added_lines())).encode())

    return work.with_gold(alter)


def _altered(text: str, numbers: list[int]) -> str:
    """The program with one of these lines changed; it still compiles."""
    lines = text.splitlines(keepends=True)
    for pattern, replacement in ALTERATIONS:
        for number in numbers:
            line = re.sub(pattern, replacement, lines[number], flags=re.MULTILINE)
            changed = "".join([*lines[:number], line, *lines[number + 1 :]])
            if _program(changed) not in ("", _program(text)):
                return changed
    raise ValueError("no line of gold can be altered")


def _program(text: str) -> str:
    """The syntax tree of Python code; empty if it has an error."""
    try:
        return ast.dump(ast.parse(text))
    except SyntaxError:
        return ""


def half_fix(work: WorkTree) -> str:
    """Gold without its last hunk; if it has only one, a line without effect."""
    files = PatchSet(work.gold)
    del files[-1][-1]
    if not files[-1]:
        del files[-1]
    return str(files) or no_change(work)


def no_change(work: WorkTree) -> str:
    """Adds a line without effect."""
    with work.source.open("a") as file:
        file.write("\n# Nothing to fix here.\n")
    return work.diff()


def syntax_error(work: WorkTree) -> str:
    """Gold in a file that Python cannot parse."""

    def spoil() -> None:
        work.source.write_bytes(b"def broken(:\n" + work.source.read_bytes())

    return work.with_gold(spoil)


# --- What git can produce -------------------------------------------------------------


def rename(work: WorkTree) -> str:
    """Gold, and a rename of an unused file."""
    return work.with_gold(lambda: work.bystander.rename(work.root / "RENAMED"))


def renamed_source(work: WorkTree) -> str:
    """Gold in a renamed file."""
    target = work.source.with_stem(f"{work.source.stem}_renamed")
    return work.with_gold(lambda: work.source.rename(target))


def mode_only(work: WorkTree) -> str:
    """The file becomes executable, or stops being executable."""
    work.source.chmod(work.source.stat().st_mode ^ 0o111)
    return work.diff()


def new_file(work: WorkTree) -> str:
    """Gold, and a module in a new directory."""

    def add() -> None:
        (work.root / "added").mkdir()
        (work.root / "added/module.py").write_text("VALUE = 1\n")

    return work.with_gold(add)


def empty_file(work: WorkTree) -> str:
    """Gold, and an empty file, which is a header without a hunk."""
    return work.with_gold((work.root / "py.typed").touch)


def deleted_source(work: WorkTree) -> str:
    """The file that gold fixes is deleted."""
    work.source.unlink()
    return work.diff()


def binary(work: WorkTree) -> str:
    """Gold, and a file that git writes as a binary hunk."""
    content = bytes(range(256)) * 4
    return work.with_gold(lambda: (work.root / "logo.bin").write_bytes(content))


def symlink(work: WorkTree) -> str:
    """Gold, and a symbolic link."""
    return work.with_gold(lambda: (work.root / "linked").symlink_to("added"))


def quoted_paths(work: WorkTree) -> str:
    """Gold, and files whose names git writes in quotes."""

    def add() -> None:
        for name in ('a "name".txt', "tab\there.txt", "naïve.txt", "back\\slash.txt"):
            (work.root / name).write_text("text\n")

    return work.with_gold(add)


def crlf_file(work: WorkTree) -> str:
    """Gold in a file whose lines end in CR LF."""

    def convert() -> None:
        lines = work.source.read_bytes().splitlines()
        work.source.write_bytes(b"".join(line + b"\r\n" for line in lines))

    return work.with_gold(convert)


def file_without_newline(work: WorkTree) -> str:
    """Gold in a file whose last line loses its newline."""

    def strip() -> None:
        work.source.write_bytes(work.source.read_bytes().rstrip() + b"  # the end")

    return work.with_gold(strip)


def ignored_file(work: WorkTree) -> str:
    """Gold, and a file that the same patch makes git ignore."""

    def add() -> None:
        with (work.root / ".gitignore").open("ab") as file:
            file.write(b"\n*.ignored\n")
        (work.root / "some.ignored").write_text("unseen\n")

    return work.with_gold(add)


def latin1_patch(work: WorkTree) -> str:
    """Gold, and a plain line that is not UTF-8."""

    def add() -> None:
        with work.bystander.open("ab") as file:
            file.write(LATIN_1)

    return work.with_gold(add)


def latin1_file(work: WorkTree) -> str:
    """Gold, and a binary hunk that turns a text file into Latin-1."""

    def encode() -> None:
        name = work.bystander.relative_to(work.root)
        (work.root / ".git/info/attributes").write_text(f"{name} binary\n")
        work.bystander.write_bytes(LATIN_1)

    return work.with_gold(encode)


# --- What only models write -----------------------------------------------------------


def hunk_too_long(work: WorkTree) -> str:
    """The first hunk announces one line too many."""
    return _recounted(work.gold, 1)


def hunk_too_short(work: WorkTree) -> str:
    """The first hunk announces one line too few."""
    return _recounted(work.gold, -1)


def _recounted(patch: str, by: int) -> str:
    def header(hunk: re.Match[str]) -> str:
        old, new = (int(hunk[n] or 1) + by for n in (2, 4))
        return f"@@ -{hunk[1]},{old} +{hunk[3]},{new} @@"

    return HUNK.sub(header, patch, count=1)


def wrong_line_numbers(work: WorkTree) -> str:
    """The header of every hunk is off by forty lines."""

    def header(hunk: re.Match[str]) -> str:
        old, new = int(hunk[1]) + 40, int(hunk[3]) + 40
        return f"@@ -{old},{hunk[2] or 1} +{new},{hunk[4] or 1} @@"

    return HUNK.sub(header, work.gold)


def shifted_context(work: WorkTree) -> str:
    """The first context line of a hunk is wrong; only `patch --fuzz` accepts it."""
    lines = work.gold.splitlines(keepends=True)
    for number, line in enumerate(lines[1:], start=1):
        if HUNK.match(lines[number - 1]) and line.startswith(" "):
            lines[number] = " # a line as the model remembers it\n"
            return "".join(lines)
    raise ValueError("no hunk of gold begins with context")


def stripped_blank_lines(work: WorkTree) -> str:
    """Blank context lines without their space, as some editors leave them."""
    return re.sub(r"^ $", "", work.gold, flags=re.MULTILINE)


def crlf_patch(work: WorkTree) -> str:
    """Gold with CR LF line endings, for files that do not have them."""
    return work.gold.replace("\n", "\r\n")


def no_last_newline(work: WorkTree) -> str:
    """Gold with its last newline cut off."""
    return work.gold.removesuffix("\n")


def prose(work: WorkTree) -> str:
    """Gold within an answer."""
    return f"Here is the fix:\n\n```diff\n{work.gold}```\n\nThat should do it.\n"


def plain_headers(work: WorkTree) -> str:
    """Gold without git's own headers."""
    return _without_git_headers(work.gold)


def _without_git_headers(patch: str) -> str:
    return re.sub(r"^(?:diff --git|index) .+\n", "", patch, flags=re.MULTILINE)


def no_prefixes(work: WorkTree) -> str:
    """Gold without `a/` and `b/`."""
    return re.sub(r"(?<=[ ])[ab]/", "", work.gold)


def doubled(work: WorkTree) -> str:
    """Gold twice."""
    return work.gold * 2


def reversed_gold(work: WorkTree) -> str:
    """Gold reversed, which `git apply --3way` accepts in some cases."""
    work.git("apply", "-", given=work.gold)
    return work.diff("-R")


def already_applied(work: WorkTree) -> str:
    """A patch that is already applied; only the final reverse check accepts it."""
    return _without_git_headers(reversed_gold(work))


def leaves_rejects(work: WorkTree) -> str:
    """Gold, and a hunk that fits nowhere: part is applied, the rest becomes `.rej`."""
    name = work.bystander.relative_to(work.root)
    lines = " not this line\n-nor this one\n+a new one\n not here\n"
    return f"{work.gold}--- a/{name}\n+++ b/{name}\n@@ -1,3 +1,3 @@\n{lines}"


def outside(work: WorkTree) -> str:
    """Gold, and a file outside the repository."""
    return f"{work.gold}--- /dev/null\n+++ b/../outside.txt\n@@ -0,0 +1 @@\n+here\n"


def submodule(work: WorkTree) -> str:
    """Gold, and a submodule."""
    return (
        f"{work.gold}diff --git a/vendored b/vendored\nnew file mode 160000\n"
        f"index 0000000..1111111\n--- /dev/null\n+++ b/vendored\n"
        f"@@ -0,0 +1 @@\n+Subproject commit {'1' * 40}\n"
    )


def lone_surrogate(work: WorkTree) -> str:
    """Gold, and a lone surrogate, which cannot be encoded."""
    return f"{work.gold}--- /dev/null\n+++ b/half.txt\n@@ -0,0 +1 @@\n+\ud83d\n"


def whitespace(work: WorkTree) -> str:
    """Blank lines."""
    return " \n\t\n\n"


def no_diff(work: WorkTree) -> str:
    """Words."""
    return "I could not find the cause of this issue.\n"


MUTATIONS: dict[str, Callable[[WorkTree], str]] = {
    make.__name__: make
    for make in (
        wrong_fix,
        half_fix,
        no_change,
        syntax_error,
        rename,
        renamed_source,
        mode_only,
        new_file,
        empty_file,
        deleted_source,
        binary,
        symlink,
        quoted_paths,
        crlf_file,
        file_without_newline,
        ignored_file,
        latin1_patch,
        latin1_file,
        hunk_too_long,
        hunk_too_short,
        wrong_line_numbers,
        shifted_context,
        stripped_blank_lines,
        crlf_patch,
        no_last_newline,
        prose,
        plain_headers,
        no_prefixes,
        doubled,
        reversed_gold,
        already_applied,
        leaves_rejects,
        outside,
        submodule,
        lone_surrogate,
        whitespace,
        no_diff,
    )
}


def mutate(snapshot: Path, gold: str, scratch: Path) -> dict[str, str]:
    """Every mutation of one gold patch.

    Args:
        snapshot: The files at the base commit; not modified.
        gold: The gold patch.
        scratch: A directory that does not exist yet.

    Returns:
        Patches by the name of the mutation.
    """
    shutil.copytree(snapshot, scratch, symlinks=True)
    base_commit(scratch)
    work = WorkTree(scratch, gold)
    patches = {}
    for name, make in MUTATIONS.items():
        work.reset()
        patches[name] = make(work)
    return patches
