r"""The search-replace form of an answer: grammar, writing and applying.

Each block starts with the file's path on a line of its own:

    src/a.py                      src/old.py               src/new.py
    <<<<<<< SEARCH                <<<<<<< DELETE           <<<<<<< RENAME
    lines of the file             >>>>>>> DELETE           src/newer.py
    =======                                                >>>>>>> RENAME
    replacement lines
    >>>>>>> REPLACE

- SEARCH is whole lines that occur exactly once in the file before the answer; all
  blocks refer to that state, so their order does not matter.
- An empty SEARCH creates the file, or fills an empty one; its path has no spaces, to
  distinguish it from prose.
- Blocks of a renamed file use its old path.
- `\ No newline at end of file` may end a part, as in a diff. When neither part
  has it, the end of the file stays as it is.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from swebench_trainer.answers.checks import refuse_uncertain
from swebench_trainer.answers.errors import NothingChangesError
from swebench_trainer.answers.layout import Layout
from swebench_trainer.contents.paths import check_path
from swebench_trainer.contracts import Tree
from swebench_trainer.patches.files import (
    ChangedFiles,
    File,
    Text,
    find_lines,
    read_file,
)
from swebench_trainer.patches.lenient_diff import FENCE
from swebench_trainer.patches.quoting import unquote
from swebench_trainer.patches.strict_diff import FileChange, Hunk
from swebench_trainer.types import Finish

_DIVIDER = "======="
_NO_NEWLINE = "\\ No newline at end of file"
_OPENERS = {
    "<<<<<<< SEARCH": ">>>>>>> REPLACE",
    "<<<<<<< DELETE": ">>>>>>> DELETE",
    "<<<<<<< RENAME": ">>>>>>> RENAME",
}
_MARKERS = {*_OPENERS, *_OPENERS.values(), _DIVIDER}
_PATH = re.compile(r"[^\s<>]*[^\s:<>]\s*|[\s#*]*`[^`]+`[\s:*]*")
"""A line that cannot be prose, since nothing else identifies the path of a new file."""
_MALFORMED_MARKER = re.compile(r"[ \t]*(?:<{4,}|>{5,})")
_GLUED = re.compile(
    rf"^({'|'.join(_OPENERS.values())})(?=[ \t]*(?:`|~|<|\[|\u25c1|assistant))",
    re.MULTILINE,
)
"""The end of a block with a fence, a tag or a special token behind it."""
_SENTENCE = re.compile(r"[A-Z][a-z]*(?:['\u2019][a-z]+)?[.,:;!?]*")
"""A line of one word that is prose, such as `Done.`"""


@dataclass(frozen=True)
class Edit:
    """One SEARCH and its REPLACE."""

    path: str
    search: Text
    replace: Text


@dataclass(frozen=True)
class Delete:
    """A deleted file."""

    path: str


@dataclass(frozen=True)
class Rename:
    """A file renamed to the path `to`."""

    path: str
    to: str


Block = Edit | Delete | Rename


# --- Writing: a patch as blocks ---


def blocks_of(
    change: FileChange, old: File | None, context: int | None = None
) -> Iterator[Block]:
    """Yields the blocks that express `change`.

    Args:
        change: Change of one file by a patch.
        old: The file before, from which context is taken until each SEARCH is
            unique. Without it a SEARCH is its hunk's own lines, which need not
            be unique.
        context: See `unique_hunks`.

    Raises:
        ValueError: Blocks cannot express it, or the hunks do not fit `old`.
    """
    if change.special:
        raise ValueError(f"search-replace blocks cannot express {change.special}")
    if change.old is None:
        assert change.new is not None  # read_patch
        text = change.hunks[0].new if change.hunks else Text()
        yield Edit(change.new, Text(), text)
        return
    if change.new is None:
        yield Delete(change.old)
        return
    if change.new != change.old:
        yield Rename(change.old, change.new)
    for hunk in unique_hunks(change, old.text, context) if old else change.hunks:
        if not hunk.old.lines and hunk.start:
            raise ValueError("an insertion without context has no text to search for")
        if hunk.old.newline == hunk.new.newline:
            yield Edit(change.old, Text(hunk.old.lines), Text(hunk.new.lines))
        else:
            yield Edit(change.old, hunk.old, hunk.new)


def unique_hunks(
    change: FileChange, text: Text, context: int | None = None
) -> Iterator[Hunk]:
    """Yields the hunks with enough context that the old lines occur once in `text`.

    Args:
        change: Change of the file by a patch.
        text: The file before.
        context: Lines before and after a change that are kept though the hunk is
            unique without them; `None` keeps all.

    Raises:
        ValueError: The hunks do not fit `text`.
    """
    spans: list[tuple[int, int, list[Hunk]]] = []
    done = 0
    for hunk in change.hunks:
        if hunk.start < done or not hunk.fits(text):
            raise ValueError(f"the patch does not fit {change.old} at its commit")
        done = hunk.end
        kept = hunk if context is None else _narrow(hunk, context)
        start, end = _grow(kept, text)
        members = [kept]
        # What contains a unique text is unique, so spans that meet become one.
        while spans and start < spans[-1][1]:
            earlier = spans.pop()
            start, end = min(start, earlier[0]), max(end, earlier[1])
            members = earlier[2] + members
        spans.append((start, end, members))
    return (_splice(text, *span) for span in spans)


def _narrow(hunk: Hunk, context: int) -> Hunk:
    """The hunk with at most `context` unchanged lines before and after its change."""
    old, new = hunk.old, hunk.new
    if not (old.newline and new.newline):
        return hunk  # which line lacks its newline shows in the last one alone
    shorter = min(len(old.lines), len(new.lines))
    before = _alike(old.lines, new.lines, shorter)
    after = _alike(old.lines[::-1], new.lines[::-1], shorter - before)
    first, behind = max(0, before - context), max(0, after - context)
    return Hunk(
        hunk.start + first,
        Text(old.lines[first : len(old.lines) - behind]),
        Text(new.lines[first : len(new.lines) - behind]),
    )


def _alike(some: Sequence[str], others: Sequence[str], most: int) -> int:
    """Number of equal lines at the beginning of two texts, at most `most`."""
    return next((n for n in range(most) if some[n] != others[n]), most)


def _grow(hunk: Hunk, text: Text) -> tuple[int, int]:
    start, end = hunk.start, hunk.end
    while end - start < len(text.lines) and (
        start == end or len(find_lines(text.lines, text.lines[start:end])) > 1
    ):
        start, end = max(0, start - 1), min(len(text.lines), end + 1)
    return start, end


def _splice(text: Text, start: int, end: int, members: Sequence[Hunk]) -> Hunk:
    """One hunk for the lines from `start` to `end`, which contain all `members`."""
    new: list[str] = []
    done = start
    for hunk in members:
        new += (*text.lines[done : hunk.start], *hunk.new.lines)
        done = hunk.end
    new += text.lines[done:end]
    at_end = end == len(text.lines)
    old_newline = text.newline or not at_end
    new_newline = members[-1].new.newline if done == end else old_newline
    return Hunk(
        start,
        Text(text.lines[start:end], old_newline),
        Text(tuple(new), new_newline),
    )


def write_block(block: Block) -> str:
    """The block as text, ending with a newline.

    Raises:
        ValueError: The path or a line would be misread.
    """
    for path in (block.path, block.to) if isinstance(block, Rename) else (block.path,):
        check_path(path)
        unclear = _creates(block) and not _PATH.fullmatch(path)
        if clean_path(path) != path or FENCE.match(path) or unclear:
            raise ValueError("a block cannot name the path")
    if isinstance(block, Delete):
        body = ["<<<<<<< DELETE", ">>>>>>> DELETE"]
    elif isinstance(block, Rename):
        body = ["<<<<<<< RENAME", block.to, ">>>>>>> RENAME"]
    else:
        old, new = _part(block.search), _part(block.replace)
        body = ["<<<<<<< SEARCH", *old, _DIVIDER, *new, ">>>>>>> REPLACE"]
    return "\n".join((block.path, *body, ""))


def _part(text: Text) -> list[str]:
    if any(line.rstrip() in (*_MARKERS, _NO_NEWLINE) for line in text.lines):
        raise ValueError("the lines contain a marker of the search-replace form")
    return [*text.lines] if text.newline else [*text.lines, _NO_NEWLINE]


# --- Reading: an answer as blocks ---


def clean_path(line: str) -> str:
    """The path on a line such as ``### `src/a.py`:``, without quotes around it."""
    path = line.strip().lstrip("# ").strip("`*: ")
    if len(path) > 2 and path[0] == path[-1] and path[0] in "\"'":
        return unquote(path) if path[0] == '"' else path[1:-1]
    return path


def layout_of_blocks(text: str) -> Layout:
    """The text and its finished blocks, without their paths."""
    parts = []
    start = 0
    closer = ""
    for number, line in enumerate(text.split("\n")):
        marker = line.rstrip()
        if marker in _OPENERS:
            start, closer = number, _OPENERS[marker]
        elif marker and marker == closer:
            parts.append(range(start, number + 1))
            closer = ""
        elif marker in _OPENERS.values():
            closer = ""
    return Layout.of_lines(text, parts)


def separate_glued(text: str) -> str:
    """The text with what follows the end of a block on a line of its own."""
    return _GLUED.sub(r"\1\n", text)


def parse_blocks(text: str) -> tuple[list[Block], list[str]]:
    """Reads every block of an answer, and tolerates text around them.

    Returns:
        The blocks, and the names of the repairs.

    Raises:
        ValueError: A block is not finished, or ambiguous.
    """
    lines = iter(text.split("\n"))
    blocks: list[Block] = []
    repairs: list[str] = []
    around: list[str] = []
    path = named = fenced = ""
    for line in lines:
        marker = line.rstrip()
        if marker in _OPENERS:
            if around:
                named = around.pop()
                fenced = ""
                path = clean_path(named)
                repairs += [] if named.rstrip() == path else ["path"]
            if fenced:
                raise ValueError("the path of a block is on the line of a fence")
            block = _block(path, marker, _body(lines, _OPENERS[marker]))
            if _creates(block) and not _PATH.fullmatch(named):
                raise ValueError(f"{path!r} may not be a path")
            blocks.append(block)
        elif marker in _OPENERS.values():
            raise ValueError("a block has no opening marker")
        elif FENCE.match(line):
            repairs.append("fences")
            fenced = _path_of_fence(line)
            continue
        elif _MALFORMED_MARKER.match(line):
            raise ValueError("a marker of a block is malformed")
        elif marker:
            around.append(line)
            continue
        else:
            continue
        if around:
            repairs.append("prose")
            around.clear()
    if around:
        repairs.append("prose")
    return blocks, repairs


def _path_of_fence(line: str) -> str:
    """The path after the backticks of a fence; empty without one."""
    words = line.strip().strip("`~").split()
    return next((word for word in words if "/" in word or "." in word), "")


def may_continue(layout: Layout, finish: str, tree: Tree | None) -> bool:
    """Whether an answer may have been cut off before or inside another block.

    Args:
        layout: The answer; it has a block.
        finish: How the answer ended, see `Sample.finish`.
        tree: Files of the repository, if known.
    """
    if finish == Finish.STOP:
        return False
    at_limit = finish == Finish.LENGTH
    tail = layout.text[layout.parts[-1].stop :].split("\n")
    behind = [line.strip() for line in tail if line.strip()]
    if not behind:
        return at_limit
    last = behind[-1]
    if FENCE.match(last):
        only_fences = all(FENCE.match(line) for line in behind)
        return layout.in_fence(len(layout.text)) or (at_limit and only_fences)
    return any(opener.startswith(last) for opener in _OPENERS) or _may_be_path(
        last, tree, at_limit=at_limit
    )


def _may_be_path(line: str, tree: Tree | None, *, at_limit: bool) -> bool:
    """Whether the last line of an answer may be a path, or the beginning of one."""
    path = clean_path(line).lstrip("\"'")
    if not path:
        return at_limit  # only decoration
    if tree and any(known.startswith(path) for known in tree.paths()):
        return True
    if any(mark in path.rstrip(".!?") for mark in " \t"):
        return False
    if any(mark in path.rstrip(".!?") for mark in "/._\\"):
        return True
    return at_limit and not _SENTENCE.fullmatch(path)


def _creates(block: Block) -> bool:
    return isinstance(block, Edit) and not block.search.lines


def _body(lines: Iterator[str], closer: str) -> list[str]:
    body: list[str] = []
    for line in lines:
        marker = line.rstrip()
        if marker == closer:
            return body
        if marker in _MARKERS and marker != _DIVIDER:
            break
        body.append(line)
    raise ValueError("a block is not finished")


def _block(path: str, opener: str, body: list[str]) -> Block:
    if not path:
        raise ValueError("a block has no path")
    check_path(path)
    if opener.endswith("SEARCH"):
        dividers = [i for i, line in enumerate(body) if line.rstrip() == _DIVIDER]
        if len(dividers) != 1:
            raise ValueError(f"a block has {len(dividers)} dividers instead of one")
        old, new = body[: dividers[0]], body[dividers[0] + 1 :]
        return Edit(path, _text(old), _text(new))
    if opener.endswith("RENAME") and len(body) == 1:
        to = clean_path(body[0])
        check_path(to)
        return Rename(path, to)
    if opener.endswith("DELETE") and not body:
        return Delete(path)
    raise ValueError("a block has the wrong number of lines")


def _text(lines: list[str]) -> Text:
    if lines and lines[-1].rstrip() == _NO_NEWLINE:
        if len(lines) == 1:
            raise ValueError("a block marks a missing newline but has no line")
        return Text(tuple(lines[:-1]), newline=False)
    return Text(tuple(lines))


# --- Applying ---


def apply_blocks(blocks: Iterable[Block], tree: Tree) -> ChangedFiles:
    """Applies the blocks to the files of a repository.

    Raises:
        ValueError: A block does not fit; the message is one line.
    """
    by_path: dict[str, list[Block]] = defaultdict(list)
    for block in blocks:
        by_path[block.path].append(block)
    files = ChangedFiles()
    for path, group in by_path.items():
        file = read_file(tree, path)
        if file:
            files.old[path] = file
        target, result, repaired = _apply_to(file, path, group)
        files.repairs += repaired
        if result is None:
            continue
        taken = target != path and (target in by_path or read_file(tree, target))
        if target in files.new or taken:
            raise ValueError(f"{target} already exists")
        files.new[target] = result
    folders = {str(folder) for path in files.new for folder in PurePath(path).parents}
    if not folders.isdisjoint(files.new):
        raise ValueError("a file and a directory have the same name")
    refuse_uncertain(files)
    return files


def _apply_to(
    file: File | None, path: str, group: list[Block]
) -> tuple[str, File | None, list[str]]:
    """Path and content of the file afterwards (`None` if deleted), and repairs."""
    edits = [block for block in group if isinstance(block, Edit)]
    moves = [block for block in group if isinstance(block, Rename)]
    deleted = len(edits) + len(moves) < len(group)
    if len(moves) > 1 or (deleted and len(group) > 1):
        raise ValueError(f"the blocks of {path} contradict each other")
    if file is None:
        if deleted or moves:
            raise ValueError(f"the file {path} does not exist")
        if edits[0].search.lines:
            raise ValueError(f"search text not found in {path}")
        if len(edits) > 1:
            raise ValueError(f"the blocks of {path} contradict each other")
        return path, File(edits[0].replace), []
    if deleted:
        return path, None, []
    repairs = []
    if any(edit.search == edit.replace for edit in edits):
        raise NothingChangesError
    try:
        text = _apply_edits(file.text, edits)
    except ValueError:
        converted = _with_line_ends_of(file.text, edits)
        if converted == edits:
            raise
        text = _apply_edits(file.text, converted)
        repairs.append("crlf")
    return moves[0].to if moves else path, replace(file, text=text), repairs


def _apply_edits(text: Text, edits: Sequence[Edit]) -> Text:
    placed = sorted(((_place(text, edit), edit) for edit in edits), key=lambda p: p[0])
    lines: list[str] = []
    newline = text.newline
    done = 0
    for start, edit in placed:
        if start < done:
            raise ValueError(f"two blocks change the same lines of {edit.path}")
        lines += (*text.lines[done:start], *edit.replace.lines)
        done = start + len(edit.search.lines)
        if done == len(text.lines):
            newline = _newline_after(text, edit)
        elif not edit.replace.newline:
            raise ValueError("only the last line of a file can lack its newline")
    return Text((*lines, *text.lines[done:]), newline)


def _place(text: Text, edit: Edit) -> int:
    """Index of the line where the search text of `edit` starts."""
    needle = edit.search
    if not needle.lines and text.lines:
        raise ValueError(f"search text is empty, but {edit.path} is not")
    starts = find_lines(text.lines, needle.lines)
    if not needle.newline:
        end = len(text.lines) - len(needle.lines)
        starts = [end] if not text.newline and end in starts else []
    if len(starts) > 1:
        raise ValueError(f"search text is not unique in {edit.path}")
    if not starts:
        raise ValueError(f"search text not found in {edit.path}")
    return starts[0]


def _newline_after(text: Text, edit: Edit) -> bool:
    """Whether the file ends with a newline after an edit of its last line."""
    if not edit.replace.newline:
        return False
    if not edit.search.newline or not edit.replace.lines:
        return True
    return text.newline


def _with_line_ends_of(text: Text, edits: Sequence[Edit]) -> list[Edit]:
    """The edits with the line endings of the file, if it does not mix two kinds."""
    ended = text.lines if text.newline else text.lines[:-1]
    if not any("\r" in line for line in text.lines):
        end = ""
    elif all(line.endswith("\r") for line in ended):
        end = "\r"
    else:
        return [*edits]

    def convert(part: Text) -> Text:
        lines = tuple(line.removesuffix("\r") + end for line in part.lines)
        return replace(part, lines=lines)

    return [
        replace(edit, search=convert(edit.search), replace=convert(edit.replace))
        for edit in edits
    ]
