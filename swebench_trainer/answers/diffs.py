"""The diff form of an answer: the patch that stands somewhere in a text.

A patch that applies is taken as it is. One that does not is mended, where the
files leave no doubt about what it means; without files, only its form is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from swebench_trainer.answers.envelope import tagged, without_thoughts
from swebench_trainer.answers.errors import NothingChangesError
from swebench_trainer.answers.repair_diff import mend, prefix_unclear, read_names
from swebench_trainer.contents.paths import UNSAFE
from swebench_trainer.contracts import Tree
from swebench_trainer.patches.lenient_diff import DEV_NULL, Scan, Section, scan
from swebench_trainer.patches.strict_diff import (
    applies,
    make_patch,
    read_patch,
    unquote,
)
from swebench_trainer.recipe.models import REPAIRS, Repair

CUT = "length"
"""`Sample.finish` of an answer that was cut at the token limit."""
_STOPPED = "stop"
BREAKS_OFF = "the answer breaks off in its patch"
"""Reason given where the rest of a patch may be missing."""


def find_diff(
    answer: str,
    tree: Tree | None,
    *,
    finish: str = "",
    repairs: frozenset[Repair] = REPAIRS,
) -> tuple[str, list[str]]:
    """Takes the patch out of an answer: every file section, nothing around them.

    Args:
        answer: What the model wrote.
        tree: The repository's files, where they are known.
        finish: How the answer ended, as `Sample.finish` has it.
        repairs: Those that may be made.

    Returns:
        The patch and the names of the repairs; both empty when there is none.

    Raises:
        ValueError: What looks like a patch is not one, or names an unsafe path,
            or needs a repair that may not be made.
    """
    text, around, closed = _peel(answer)
    lines = text.split("\n")
    if ended := not lines[-1]:
        lines.pop()
    crlf = len(lines) > 1 and all(line.endswith("\r") for line in lines if line)
    if crlf:
        lines = [line.removesuffix("\r") for line in lines]
    found = scan(lines)
    if not found.sections:
        return "", []
    around += found.around
    _check_paths(found.sections)
    # Nothing tells that the answer is complete, unless the writer itself stopped.
    open_end = not closed and finish != _STOPPED
    if open_end and _hangs(found, lines, finish):
        raise ValueError(BREAKS_OFF)
    if found.last == len(lines) - 1 and not (ended or closed):
        around.append("final-newline")
    check_allowed(around, repairs)
    written = _join(found.sections, "\r" if crlf else "")
    read_as_meant = True
    if tree:
        old = touched(found.sections, tree)
        read_as_meant = not any(_misread(section, tree) for section in found.sections)
        if read_as_meant and applies(written, old):
            return written, around
    if open_end and not _last_line(lines, found) and _short(found):
        raise ValueError(BREAKS_OFF)
    try:
        patch, made = _mended(found.sections, tree)
        # git refuses hunks without context, and hunks that share it.
        made = (["crlf"] if crlf else []) + made or (["context"] if tree else [])
        check_allowed(made, repairs)
    except ValueError:
        # What is a patch stays one: graders tell whether it applies.
        if tree and read_as_meant and not crlf and _well_formed(found.sections):
            return written, around
        raise
    return patch, around + made


def _peel(answer: str) -> tuple[str, list[str], bool]:
    """The text that holds the patch, what was taken off, and whether a tag ends it."""
    around = []
    text = without_thoughts(answer)
    if text != answer:
        around.append("thoughts")
    inner = tagged(text)
    if inner:
        around.append("tags")
    return (*inner[:1], around, inner[1]) if inner else (text, around, False)


def check_allowed(made: Iterable[str], allowed: frozenset[Repair]) -> None:
    """Refuses an answer that needs a repair which may not be made.

    Raises:
        ValueError: It is switched off.
    """
    if missing := [name for name in made if name not in allowed]:
        raise ValueError(f"it needs the repair {missing[0]}, which is switched off")


def _hangs(found: Scan, lines: Sequence[str], finish: str) -> bool:
    """Whether the text ends with the beginning of something more, or may."""
    if rest := _last_line(lines, found):
        return "diff --git ".startswith(rest) or "@@ -".startswith(rest)
    last = found.sections[-1]
    names = read_names(last)
    says = names.creates or names.deletes or names.renamed_to or names.special
    return finish == CUT or not (last.hunks or says)


def _last_line(lines: Sequence[str], found: Scan) -> str:
    """The last line behind the patch that is not blank; empty if there is none."""
    behind = [line for line in lines[found.last + 1 :] if line.strip()]
    return behind[-1] if behind else ""


def _short(found: Scan) -> bool:
    """Whether the last hunk may be half of one: what would follow is not known."""
    hunks = found.sections[-1].hunks
    return bool(hunks) and hunks[-1].short


def _join(sections: Iterable[Section], end: str = "", *, recount: bool = False) -> str:
    return "".join(
        f"{line}{end}\n"
        for section in sections
        for line in section.lines(recount=recount)
    )


def _well_formed(sections: Sequence[Section]) -> bool:
    if not all(hunk.counts for section in sections for hunk in section.hunks):
        return False
    try:
        changes = read_patch(_join(sections))
    except ValueError:
        return False
    return any(c.hunks or c.special or c.old != c.new for c in changes)


def _misread(section: Section, tree: Tree) -> bool:
    """Whether git may accept the section and do something else than it says.

    Lines beyond a hunk's counts are dropped without a word, and so are the hunks of a
    file that moves, if no line `+++` comes before them. The first folder of a path
    without a prefix counts as one: the file is moved, or made elsewhere.
    """
    if not all(hunk.counts for hunk in section.hunks):
        return True
    if section.hunks and not section.header[-1].startswith("+++ "):
        return True
    names = read_names(section)
    if names.renamed_to or names.deletes:
        return False
    if not names.creates:
        return not names.git_path
    return prefix_unclear(names.paths[-1], section, tree)


def touched(sections: Iterable[Section], tree: Tree) -> dict[str, bytes]:
    """What there is under the names that git reads from the headers.

    Raises:
        ValueError: A path is unsafe.
    """
    found = {}
    for section in sections:
        names = read_names(section)
        paths = {path.partition("/")[2] for path in names.paths}
        for path in filter(None, {*paths, names.git_path, names.renamed_to}):
            content = tree.read(path)
            if content is not None:
                found[path] = content
    return found


def _mended(sections: Sequence[Section], tree: Tree | None) -> tuple[str, list[str]]:
    if tree:
        result = mend(sections, tree)
        return make_patch(result.old, result.new), result.repairs
    repairs: list[str] = []
    kept: list[Section] = []
    for section in sections:
        mended = Section(_with_dev_null(section), section.hunks)
        if mended in kept:
            repairs.append("repeats")
            continue
        if mended.header != section.header:
            repairs.append("dev-null")
        if not all(hunk.counts for hunk in section.hunks):
            repairs.append("hunk-counts")
        kept.append(mended)
    patch = _join(kept, recount=True)
    if not any(c.hunks or c.special or c.old != c.new for c in read_patch(patch)):
        raise NothingChangesError
    return patch, repairs


def _with_dev_null(section: Section) -> tuple[str, ...]:
    names = read_names(section)
    nulls = {"--- ": names.creates, "+++ ": names.deletes}
    return tuple(
        f"{line[:4]}{DEV_NULL}" if nulls.get(line[:4]) else line
        for line in section.header
    )


def _check_paths(sections: Iterable[Section]) -> None:
    """Refuses unsafe paths wherever some tool might read one from a header."""
    for section in sections:
        for header in section.header:
            for word in unquote(header).split():
                parts = word.lower().split("/")
                if (
                    ".." in parts
                    or ".git" in parts
                    or (not parts[0] and word != DEV_NULL)
                ):
                    raise ValueError(UNSAFE)
        read_names(section)
