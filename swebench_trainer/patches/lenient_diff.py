"""Lenient reader: finds the sections of a diff in any text, such as a model's answer.

Nothing in a text makes the reader fail, and nothing is repaired here. What it cannot
make sense of is reported as `Scan.problem`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from swebench_trainer.contents.paths import check_path
from swebench_trainer.contracts import Tree
from swebench_trainer.patches.files import File, Text
from swebench_trainer.patches.quoting import header_names, unquote, unquote_name

DEV_NULL = "/dev/null"
FENCE = re.compile(r"\s*(```|~~~)")
"""First or last line of a Markdown code block."""

_NUMBERS = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@(.*)")
_LOOSE_START = re.compile(r"@@+ *-(\d{1,9})\b")
_HEADER = re.compile(
    r"(index|old mode|new mode|new file mode|deleted file mode|similarity index"
    r"|dissimilarity index|rename from|rename to|copy from|copy to|Binary files"
    r"|---|\+\+\+) "
)
_NAMED = {"--- ": "a/", "+++ ": "b/", "rename from ": "", "rename to ": ""}
"""Header lines that name a file."""
_UNQUOTED = re.compile(r'[^"\t][^\t]*["\\]')
"""A name that is ambiguous, since git would quote it."""
_BINARY = re.compile(r"GIT binary patch\s*|Binary files .+ differ\s*")
"""A line that stands for content that a text cannot show."""
_SIGNATURE = "-- "
"""Last line of `git format-patch` output; it looks like a deleted line."""
_LIST = re.compile(r"[-+] \S")
"""A list item in prose, or a line of a diff."""
_STRAY = re.compile(r"(?!-{2,} ?$|[-+] \S)[-+]|(rename|copy) (from|to) ")
"""A line that only makes sense in a diff: not a list item, rule or signature."""
_SPECIAL = re.compile(
    r"old mode |copy from |Binary files |index (.* )?(120000|160000)\Z"
    r"|new file mode (?!.*(100644|100755)\Z)",
    re.DOTALL,
)
"""A line of a header for a change of more than text."""
GIT_HEADER = re.compile(r"diff --git a/(.+) b/(.+)")


@dataclass(frozen=True)
class RawHunk:
    """A hunk as written.

    Attributes:
        header: First line, which starts with `@@`.
        lines: Lines with their marks; an empty one is an empty context line.
        counts: Whether the header states the numbers of lines correctly.
        short: Whether the header announces more lines than the hunk has.
    """

    header: str
    lines: tuple[str, ...]
    counts: bool
    short: bool

    @property
    def start(self) -> int | None:
        """First old line, from 1; `None` if the header does not state it."""
        found = _LOOSE_START.match(self.header)
        return int(found[1]) if found else None

    @property
    def has_old(self) -> bool:
        """Whether any line must be found in the file before the change."""
        return _line_counts(self.lines)[0] > 0

    def recounted(self) -> str:
        """The header with the correct numbers of lines.

        Raises:
            ValueError: The header has no line numbers.
        """
        if self.counts:
            return self.header
        found = _NUMBERS.match(self.header)
        if not found:
            raise ValueError("a hunk has no line numbers")
        old, new = _line_counts(self.lines)
        return f"@@ -{found[1]},{old} +{found[3]},{new} @@{found[5]}"


def _line_counts(body: Sequence[str]) -> tuple[int, int]:
    """The numbers of old and of new lines in the body of a hunk."""
    marks = [line[:1] or " " for line in body]
    context = marks.count(" ")
    return context + marks.count("-"), context + marks.count("+")


@dataclass
class Section:
    """The part of a diff about one file: header lines, then hunks."""

    header: tuple[str, ...]
    hunks: list[RawHunk] = field(default_factory=list)

    def lines(self, *, recount: bool = False) -> Iterator[str]:
        """The lines as written, or with corrected line counts in the hunk headers."""
        yield from self.header
        for hunk in self.hunks:
            yield hunk.recounted() if recount else hunk.header
            yield from hunk.lines


@dataclass(frozen=True)
class Scan:
    """The sections of a text.

    Attributes:
        around: Kinds of text around the sections: `fences`, `prose`.
        parts: Line indexes of each header and each hunk, in order.
        problem: First reason why the text is not a readable diff; empty if it is one.
    """

    sections: tuple[Section, ...]
    around: tuple[str, ...]
    parts: tuple[range, ...]
    problem: str

    @property
    def last(self) -> int:
        """Index of the last line of the last section, from 0; 0 without sections."""
        return self.parts[-1].stop - 1 if self.parts else 0


def scan(lines: Sequence[str]) -> Scan:
    """Finds every section in the lines of a text."""
    sections: list[Section] = []
    around: list[str] = []
    problems: list[str] = []
    parts: list[range] = []
    at = 0
    in_patch = False
    while at < len(lines):
        line = lines[at]
        if _starts_file(lines, at):
            end = _header_end(lines, at)
            sections.append(Section(tuple(lines[at:end])))
        elif sections and (line.startswith("@@ ") or line == "@@"):
            hunk, end = _hunk(lines, at, problems)
            sections[-1].hunks.append(hunk)
        else:
            fence = FENCE.match(line)
            if fence:
                in_patch = bool(sections) and "diff" in line
            if _BINARY.fullmatch(line):
                problems.append("the patch is binary")
            if in_patch and _STRAY.match(line):
                problems.append("lines of the patch are outside its hunks")
            if line.strip():
                around.append("fences" if fence else "prose")
            at += 1
            continue
        in_patch = True
        parts.append(range(at, end))
        at = end
    if any(_BINARY.fullmatch(x) for section in sections for x in section.header):
        problems.append("the patch is binary")
    problem = problems[0] if problems else ""
    return Scan(tuple(sections), tuple(dict.fromkeys(around)), tuple(parts), problem)


def _starts_file(lines: Sequence[str], at: int) -> bool:
    if lines[at].startswith("diff --git "):
        return True
    followed = at + 1 < len(lines) and lines[at + 1].startswith("+++ ")
    return lines[at].startswith("--- ") and followed


def _header_end(lines: Sequence[str], at: int) -> int:
    end = at + (not lines[at].startswith("--- "))
    while end < len(lines) and _HEADER.match(lines[end]):
        end += 1
        if lines[end - 1].startswith("+++ "):
            break
    return end


def _hunk(lines: Sequence[str], at: int, problems: list[str]) -> tuple[RawHunk, int]:
    """The hunk whose header is line `at`, and the index after its last line."""
    found = _NUMBERS.match(lines[at])
    old, new = (int(found[2] or 1), int(found[4] or 1)) if found else (0, 0)
    end = _counted_end(lines, at + 1, old, new) if found else None
    if end:
        return RawHunk(lines[at], tuple(lines[at + 1 : end]), True, False), end
    end = _body_end(lines, at + 1, problems)
    body = tuple(lines[at + 1 : end])
    olds, news = _line_counts(body)
    short = found is not None and olds <= old and news <= new
    return RawHunk(lines[at], body, False, short), end


def _counted_end(lines: Sequence[str], at: int, old: int, new: int) -> int | None:
    """End of a hunk with these numbers of lines; `None` if its lines do not add up."""
    while old > 0 or new > 0:
        kind = lines[at][:1] if at < len(lines) else "@"
        if kind not in ("", *" +-\\"):
            return None
        old -= kind in ("", " ", "-")
        new -= kind in ("", " ", "+")
        at += 1
    while at < len(lines) and lines[at].startswith("\\"):
        at += 1
    return None if old or new or _continues(lines, at) else at


def _continues(lines: Sequence[str], at: int) -> bool:
    """Whether a hunk has more lines than its counts, which end at `at`."""
    behind = at
    while behind < len(lines) and _in_body(lines, behind):
        behind += 1
    # Prose may follow an empty line, which could also be a line of context.
    return (behind > at and bool(lines[at])) or any(map(_STRAY.match, lines[at:behind]))


def _body_end(lines: Sequence[str], at: int, problems: list[str]) -> int:
    """End of the lines that can belong to a hunk; appends what is wrong with them."""
    stop = at
    while stop < len(lines) and _in_body(lines, stop):
        stop += 1
    end = stop
    while end > at and not lines[end - 1]:
        end -= 1
    if end == at:
        problems.append("a hunk has no lines")
        return end
    ended = stop < len(lines) and (
        lines[stop].startswith("@@")
        or lines[stop] == _SIGNATURE
        or FENCE.match(lines[stop])
        or _starts_file(lines, stop)
    )
    if end == stop < len(lines) and not ended:
        problems.append("a line of a hunk has no mark")
    if _LIST.match(lines[end - 1]) and not ended:
        problems.append("the patch ends with lines that could be a list")
    return end


def _in_body(lines: Sequence[str], at: int) -> bool:
    line = lines[at]
    marked = line[:1] in ("", *" +-\\")
    return marked and line != _SIGNATURE and not _starts_file(lines, at)


# --- Files that a diff changes ---


@dataclass(frozen=True)
class ChangedLines:
    """Lines that a diff changes in one file.

    Attributes:
        paths: Path before and after: one path, or two if the file moves.
        lines: Removed and added lines in order, each starting with `-` or `+`.
    """

    paths: frozenset[str]
    lines: tuple[str, ...]


def lines_by_file(patch: str) -> Iterator[ChangedLines]:
    """Yields the changes of each file in a diff; a text without a diff has none."""
    for section in scan(patch.replace("\r\n", "\n").split("\n")).sections:
        paths = frozenset(_any_names(section.header)) - {DEV_NULL, ""}
        lines = (line for hunk in section.hunks for line in hunk.lines)
        changed = tuple(line for line in lines if line.startswith(("-", "+")))
        if paths:
            yield ChangedLines(paths, changed)


def _any_names(header: Iterable[str]) -> Iterator[str]:
    """Every name in a header, whether they agree or not, without `a/` and `b/`."""
    for line in header:
        if line.startswith("diff --git ") and (names := header_names(line)):
            yield names[0].removeprefix("a/")
            yield names[1].removeprefix("b/")
        elif match := GIT_HEADER.fullmatch(unquote(line)):
            yield from match.groups()
        for start, prefix in _NAMED.items():
            if line.startswith(start):
                yield _name(line.removeprefix(start)).removeprefix(prefix)


# --- Names in a header ---


@dataclass(frozen=True)
class Names:
    """What the header of a section says about its file.

    Attributes:
        paths: Each path as written, including `a/` and `b/`, without `/dev/null`.
        git_path: Where git would look for the file, if the names agree.
        creates: Whether the file is new.
        deletes: Whether the file is deleted.
        renamed_to: New path of a renamed file, else empty; `paths` is its old one.
        executable: Whether a new file is executable.
        special: Whether the section changes more than text, which is never repaired.
        repairs: Repairs that the header needs, whatever the files are.
    """

    paths: tuple[str, ...]
    git_path: str
    creates: bool
    deletes: bool
    renamed_to: str
    executable: bool
    special: bool
    repairs: tuple[str, ...]


def read_names(section: Section) -> Names:
    """Reads the header of a section.

    Raises:
        ValueError: It does not name a file, or names an unsafe path.
    """
    lines = section.header
    starts = {
        start: line.removeprefix(start)
        for line in lines
        for start in (*_NAMED, "new file mode ")
        if line.startswith(start)
    }
    if any(_UNQUOTED.match(starts.get(start, "")) for start in _NAMED):
        raise ValueError("a path is not quoted as git does")
    words = [_name(starts.get(start, "")) for start in ("--- ", "+++ ")]
    repairs = ["prefixes"] if any("/./" in word for word in words) else []
    words = [word.replace("/./", "/") for word in words]
    if not any(words):
        if section.hunks:
            repairs.append("headers")
        words = _equal_names(lines[0])
    nulls = (DEV_NULL, "dev/null", "a/dev/null", "b/dev/null")
    null = [word in nulls for word in words]
    declared = (
        "new file mode " in starts,
        any(line.startswith("deleted file mode ") for line in lines),
    )
    if any(n and word != DEV_NULL for n, word in zip(null, words, strict=True)) or (
        any(d and not n for d, n in zip(declared, null, strict=True)) and section.hunks
    ):
        repairs.append("dev-null")
    creates, deletes = (n or d for n, d in zip(null, declared, strict=True))
    paths = tuple(dict.fromkeys(w for w in words if w and w not in nulls))
    renamed_to = ""
    if "rename from " in starts and "rename to " in starts:
        paths = (_name(starts["rename from "]),)
        renamed_to = _name(starts["rename to "])
        check_path(renamed_to)
    if not paths or (creates and deletes):
        raise ValueError("the patch is not well-formed")
    stripped = {path if renamed_to else path.partition("/")[2] for path in paths}
    for path in stripped:
        check_path(path or paths[0])
    return Names(
        paths=paths,
        git_path=stripped.pop() if len(stripped) == 1 else "",
        creates=creates,
        deletes=deletes,
        renamed_to=renamed_to,
        executable=starts.get("new file mode ") == "100755",
        special=_special(lines),
        repairs=tuple(repairs),
    )


def _special(lines: Sequence[str]) -> bool:
    return any(map(_SPECIAL.match, lines))


def _name(written: str) -> str:
    """The name in a header, without the timestamp that diff(1) adds after a tab."""
    name, tab, _ = written.partition("\t")
    return unquote_name(name if tab else name.rstrip())


def _equal_names(line: str) -> list[str]:
    """Both names of a `diff --git` line with prefixes; empty unless one file has both."""
    names = header_names(line) or ("", "")
    paths = {name.partition("/")[2] or name for name in names}
    path = paths.pop()
    return [f"a/{path}", f"b/{path}"] if path and not paths else ["", ""]


def named_files(sections: Iterable[Section], tree: Tree) -> dict[str, File]:
    """The existing files that git would look for, by path.

    Raises:
        ValueError: A path is unsafe.
    """
    found: dict[str, File] = {}
    for section in sections:
        names = read_names(section)
        paths = {path.partition("/")[2] for path in names.paths}
        for path in filter(None, {*paths, names.git_path, names.renamed_to}):
            content = tree.read(path)
            if content is not None:
                found[path] = File(Text.decoded(content))
    return found
