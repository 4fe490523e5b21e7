"""The diff form of an answer: finds and repairs the patch in a text.

A patch that applies is taken as written. Any other patch is repaired if the files show
exactly one meaning; without files, only its form is repaired.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from swebench_trainer.answers.checks import check_files
from swebench_trainer.answers.envelope import (
    inside_tags,
    refuse_unknown_markup,
    unglued,
)
from swebench_trainer.answers.errors import NothingChangesError, UnclearAnswerError
from swebench_trainer.answers.layout import Layout
from swebench_trainer.answers.repair_diff import is_prefix_ambiguous, repair_sections
from swebench_trainer.answers.thoughts import without_thoughts
from swebench_trainer.contents.paths import UNSAFE
from swebench_trainer.contracts import Tree
from swebench_trainer.patches.files import ChangedFiles
from swebench_trainer.patches.lenient_diff import (
    DEV_NULL,
    Scan,
    Section,
    named_files,
    read_names,
    scan,
)
from swebench_trainer.patches.quoting import unquote
from swebench_trainer.patches.strict_diff import apply_strictly, make_patch, read_patch
from swebench_trainer.recipe.models import REPAIRS, Repair
from swebench_trainer.types import Extraction, ExtractionOutcome, Finish, StaticChecks

_GLUED_HEADER = re.compile(
    r"^[-+ ].*\S(?:--- \S.*\r?\n\+\+\+ .*\r?\n@@ "
    r"|diff --git \S.*\r?\n(?:---|index|new file mode|deleted file mode) )",
    re.MULTILINE,
)
"""A hunk whose last line has the next header behind it, such as after unknown markup."""

CUT_OFF = "the answer breaks off inside its patch"
"""Reason given if the rest of a patch may be missing."""


@dataclass(frozen=True)
class ExtractedPatch:
    """The patch of an answer.

    Attributes:
        patch: Unified diff, empty if there is none. Bytes of the files that
            are not UTF-8 are surrogate escapes.
        extraction: How it was taken from the answer.
        checks: Facts about the patch; empty if the files are not known.
    """

    patch: str
    extraction: Extraction
    checks: StaticChecks = field(default_factory=StaticChecks)

    @classmethod
    def none(cls, outcome: ExtractionOutcome, reason: str) -> ExtractedPatch:
        """A failed extraction."""
        return cls("", Extraction(outcome, reason=reason))

    @classmethod
    def found(
        cls, patch: str, repairs: Iterable[str], checks: StaticChecks | None = None
    ) -> ExtractedPatch:
        """A patch that needed these repairs, in order of discovery, maybe repeated."""
        names = tuple(dict.fromkeys(repairs))
        outcome = ExtractionOutcome.REPAIRED if names else ExtractionOutcome.OK
        return cls(patch, Extraction(outcome, names), checks or StaticChecks())

    @classmethod
    def between(cls, files: ChangedFiles, repairs: Iterable[str]) -> ExtractedPatch:
        """The patch that makes these changes."""
        patch = make_patch(files.old, files.new)
        return cls.found(patch, repairs, check_files(files))


def find_diff(
    answer: str,
    tree: Tree | None,
    *,
    finish: str = "",
    repairs: frozenset[Repair] = REPAIRS,
) -> ExtractedPatch:
    """Takes the patch out of an answer: every file section, without the text around.

    Args:
        answer: Text that the model wrote.
        tree: Files of the repository, if known.
        finish: How the answer ended, see `Sample.finish`.
        repairs: Allowed repairs.

    Raises:
        NothingChangesError: No patch is found, or it leaves every file as it was.
        ValueError: The patch is malformed or ambiguous, names an unsafe path, or
            needs a repair that is not allowed.
    """
    text, around, closed = _peel(answer, tree)
    lines = text.split("\n")
    if ended := not lines[-1]:
        lines.pop()
    crlf = len(lines) > 1 and all(line.endswith("\r") for line in lines if line)
    if crlf:
        lines = [line.removesuffix("\r") for line in lines]
    found = scan(lines)
    if found.problem:
        raise ValueError(found.problem)
    if not found.sections:
        raise NothingChangesError("the answer has no patch")
    around += found.around
    _check_paths(found.sections)
    # Only a writer that stopped by itself shows that the answer is complete.
    open_end = not closed and finish != Finish.STOP
    if open_end and _is_unfinished(found, lines, finish):
        raise ValueError(CUT_OFF)
    if found.last == len(lines) - 1 and not (ended or closed):
        around.append("final-newline")
    check_allowed(around, repairs)
    written = _join(found.sections, "\r" if crlf else "")
    read_as_meant = True
    if tree:
        old = named_files(found.sections, tree)
        read_as_meant = not any(_misread(section, tree) for section in found.sections)
        if read_as_meant and (files := apply_strictly(written, old)):
            return ExtractedPatch.found(written, around, check_files(files))
    hunks = found.sections[-1].hunks
    # Lines of the last hunk may be missing.
    if open_end and not _last_line(lines, found) and hunks and hunks[-1].short:
        raise ValueError(CUT_OFF)
    made = ["crlf"] if crlf else []
    try:
        if tree:
            files = repair_sections(found.sections, tree)
            # git refuses hunks without context, and hunks that share context.
            made = [*made, *files.repairs] or ["context"]
            check_allowed(made, repairs)
            return ExtractedPatch.between(files, around + made)
        patch, repaired = _repair_form(found.sections)
        check_allowed(made + repaired, repairs)
        return ExtractedPatch.found(patch, around + made + repaired)
    except ValueError:
        # A well-formed patch is kept, and the grader finds out whether it applies.
        if tree and read_as_meant and not crlf and _is_well_formed(found.sections):
            return ExtractedPatch.found(written, around, StaticChecks(applies=False))
        raise


def _peel(answer: str, tree: Tree | None) -> tuple[str, list[str], bool]:
    """The text with the patch, what was removed around it, and whether a tag ends it.

    Raises:
        UnclearAnswerError: A draft and the answer cannot be told apart.
    """
    around = []
    text = without_thoughts(answer, _layout)
    if text != answer:
        around.append("thoughts")
    inner = inside_tags(text)
    closed = False
    if inner:
        around.append("tags")
        text, closed = inner
    layout = _layout(text)
    refuse_unknown_markup(layout)
    if _GLUED_HEADER.search(text):
        raise UnclearAnswerError

    def is_content(token: str) -> bool:
        sections = scan(text.split("\n")).sections
        files = named_files(sections, tree).values() if tree else ()
        return any(token in str(file.text) for file in files)

    return unglued(layout, is_content), around, closed


def _layout(text: str) -> Layout:
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return Layout.of_lines(text, scan(lines).parts)


def check_allowed(made: Iterable[str], allowed: frozenset[Repair]) -> None:
    """Refuses an answer that needs a disabled repair.

    Raises:
        ValueError: A repair is not allowed.
    """
    if missing := [name for name in made if name not in allowed]:
        raise ValueError(f"it needs the repair {missing[0]}, which is disabled")


def _is_unfinished(found: Scan, lines: Sequence[str], finish: str) -> bool:
    """Whether the text ends, or may end, with the beginning of another section."""
    if rest := _last_line(lines, found):
        return "diff --git ".startswith(rest) or "@@ -".startswith(rest)
    last = found.sections[-1]
    names = read_names(last)
    complete = names.creates or names.deletes or names.renamed_to or names.special
    return finish == Finish.LENGTH or not (last.hunks or complete)


def _last_line(lines: Sequence[str], found: Scan) -> str:
    """The last line after the patch that is not blank; empty without one."""
    behind = [line for line in lines[found.last + 1 :] if line.strip()]
    return behind[-1] if behind else ""


def _join(sections: Iterable[Section], end: str = "", *, recount: bool = False) -> str:
    return "".join(
        f"{line}{end}\n"
        for section in sections
        for line in section.lines(recount=recount)
    )


def _is_well_formed(sections: Sequence[Section]) -> bool:
    if not all(hunk.counts for section in sections for hunk in section.hunks):
        return False
    try:
        return _changes_anything(_join(sections))
    except ValueError:
        return False


def _changes_anything(patch: str) -> bool:
    return any(c.hunks or c.special or c.old != c.new for c in read_patch(patch))


def _misread(section: Section, tree: Tree) -> bool:
    """Whether git could accept the section and do something else than it says.

    git silently drops lines beyond the counts of a hunk, and the hunks of a renamed
    file without a `+++` line. It takes the first folder of a path without a prefix for
    the prefix, and so moves the file or creates it elsewhere.
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
    return is_prefix_ambiguous(names.paths[-1], section, tree)


def _repair_form(sections: Sequence[Section]) -> tuple[str, list[str]]:
    """The patch without the help of any files, and the names of the repairs."""
    repairs: list[str] = []
    kept: list[Section] = []
    for section in sections:
        repaired = Section(_with_dev_null(section), section.hunks)
        if repaired in kept:
            repairs.append("repeats")
            continue
        if repaired.header != section.header:
            repairs.append("dev-null")
        if not all(hunk.counts for hunk in section.hunks):
            repairs.append("hunk-counts")
        kept.append(repaired)
    patch = _join(kept, recount=True)
    if not _changes_anything(patch):
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
    """Refuses unsafe paths wherever some program might read one from a header."""
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
