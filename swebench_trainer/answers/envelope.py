"""Text around an answer: tags such as `<patch>`, and what is glued to the last line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from swebench_trainer.answers.errors import UnclearAnswerError
from swebench_trainer.answers.layout import Layout
from swebench_trainer.answers.markup import END_TOKEN, is_on_its_own, is_quoted
from swebench_trainer.patches.lenient_diff import FENCE

_ANSWERS = (
    *("answer", "final", "final_answer", "solution", "patch", "diff"),
    *("response", "output", "result"),
)
# No line of a diff starts with `<`, so a tag that does is not part of one.
_ANSWER = re.compile(rf"^<({'|'.join(_ANSWERS)})>", re.IGNORECASE | re.MULTILINE)
_TAG = re.compile(
    r"<(?P<end>/?)(?P<name>[A-Za-z][\w:.|-]*)(?:[ \t][^<>\n]*)?(?<!/)>"
    r"|\[(?P<end2>/?)(?P<name2>[A-Z][A-Z_ ]+)\]"
)
_SEPARATOR = re.compile(r"<[|\uff5c][\w:\u2581/ -]{1,40}[|\uff5c]?>")
_FINALLY = re.compile(
    r"^[ \t#*_>-]*(?:(?:here is |here's )?(?:my|the) )?final"
    r" (?:answer|solution|patch|fix|response|version|code|output|diff)[ \t*_#]*:?[ \t*_\r]*$",
    re.IGNORECASE | re.MULTILINE,
)
_GLUED_TOKENS = re.compile(rf"(?:(?:{END_TOKEN.pattern})[ \t\r]*)+$")
_GLUED_FENCE = re.compile(r"(?<!`)`{3,}(?!`)|(?<!~)~{3,}(?!~)")
_DIFF = re.compile(r"^(?:diff --git |--- .*\n\+\+\+ |@@ )", re.MULTILINE)


def inside_tags(text: str) -> tuple[str, bool] | None:
    """The text inside the tags of a final answer; `None` if none contains a diff.

    Several tags of one kind are joined, and nested tags are opened.

    Returns:
        The text, and whether the last tag is closed.
    """
    found = None
    closed = False
    while inner := _opened(text):
        text = inner[0]
        closed |= inner[1]
        found = (text, closed)
    return found


def _opened(text: str) -> tuple[str, bool] | None:
    """Like `inside_tags`, for the outermost tags only."""
    parts: list[str] = []
    closed = False
    at = 0
    while begin := _ANSWER.search(text, at):
        closer = f"</{begin[1]}>"
        following = _ANSWER.search(text, begin.end())
        again = following and following[1].lower() == begin[1].lower()
        stop = following.start() if following and again else len(text)
        end = _closing(text, closer, begin.end(), stop)
        body = text[begin.end() : stop if end is None else end]
        at = stop if end is None else end + len(closer)
        if _DIFF.search(body):
            closed = end is not None
            body = body.removeprefix("\r").removeprefix("\n")
            parts.append(body.removesuffix("\n") if closed else body)
    if not parts:
        return None
    return "\n".join(parts) + ("\n" if closed else ""), closed


def _closing(text: str, closer: str, start: int, stop: int) -> int | None:
    """Index of the closing tag: on its own line, else at the end of the last line."""
    own = re.compile(rf"^{re.escape(closer)}", re.I | re.M).search(text, start, stop)
    if own:
        return own.start()
    ends = list(
        re.finditer(
            rf"{re.escape(closer)}[ \t\r]*(?:(?:{END_TOKEN.pattern})[ \t\r]*)*$",
            text[start:stop],
            re.I | re.M,
        )
    )
    return start + ends[-1].start() if ends else None


def inside_answer_tags(layout: Layout) -> str:
    """The text inside the tags of an answer, where the tags make a difference.

    They do if a patch stands outside of them too, or if they have no line of their own.
    """
    spans = [span for name, span in _pairs(layout) if name in _ANSWERS]
    outermost = [
        span
        for span in spans
        if not any(o.start < span.start and span.stop <= o.stop for o in spans)
    ]
    inside = [span for span in outermost if layout.has_part(span.start, span.stop)]
    known = sum(any(p.start in span for span in inside) for p in layout.parts)
    # A tag on the line of a path would become a part of it.
    glued = any(layout.text[span.start] not in "\r\n" for span in inside)
    if not inside or (known == len(layout.parts) and not glued):
        return layout.text
    return "\n".join(layout.text[span.start : span.stop] for span in inside)


def refuse_unknown_markup(layout: Layout) -> None:
    """Refuses an answer whose patch stands on both sides of unknown markup.

    Raises:
        UnclearAnswerError: Some of the parts may be drafts.
    """
    if len(layout.parts) < 2:
        return
    pairs = [*_pairs(layout)]
    owners = {_owner(part, pairs) for part in layout.parts}
    first, last = layout.parts[0].start, layout.parts[-1].start
    between = (
        found
        for pattern in (_SEPARATOR, _FINALLY)
        for found in pattern.finditer(layout.text, first, last)
        if layout.part_at(found.start()) is None
    )
    if len(owners) > 1 or any(not is_quoted(layout.text, *m.span()) for m in between):
        raise UnclearAnswerError


def _owner(part: range, pairs: list[tuple[str, range]]) -> str:
    """Name of the outermost tags around a part; empty without any."""
    around = [(span.start, name) for name, span in pairs if part.start in span]
    return min(around, default=(0, ""))[1]


def _pairs(layout: Layout) -> Iterator[tuple[str, range]]:
    """The names of tags, and what stands between them.

    A missing opening is taken to be at the start, a missing end of an answer at the end.
    """
    opened: dict[str, int] = {}
    text = layout.text
    for found in _TAG.finditer(text):
        if layout.part_at(found.start()) is not None or is_quoted(text, *found.span()):
            continue
        name = (found["name"] or found["name2"]).lower()
        if found["end"] or found["end2"]:
            yield name, range(opened.pop(name, 0), found.start())
        elif is_on_its_own(text, *found.span()):
            opened.setdefault(name, found.end())
    for name in opened.keys() & {*_ANSWERS}:
        yield name, range(opened[name], len(text))


# --- What is glued to the last line of a part ---


def unglued(layout: Layout, is_content: Callable[[str], bool]) -> str:
    """The text with end tokens and fences after a hunk on lines of their own.

    Args:
        layout: The text.
        is_content: Whether the files that the patch changes have a token.

    Raises:
        UnclearAnswerError: A fence that nothing opened may be a part of the file.
    """
    text = layout.text
    hunks = [text[part.start : part.stop] for part in layout.parts]
    for part in reversed(layout.parts):
        start = text.rfind("\n", 0, part.stop) + 1
        line = text[start : part.stop]
        tokens = _GLUED_TOKENS.search(line)
        fences = [*_GLUED_FENCE.finditer(line, 1)]
        if tokens and line[1 : tokens.start()].strip():
            at = start + tokens.start()
            others = [line[: tokens.start()], *(h for h in hunks if line not in h)]
            others += [h.removesuffix(line) for h in hunks if line in h]
            names = {found[0] for found in END_TOKEN.finditer(tokens[0])}
            if any(map(END_TOKEN.search, others)) or any(map(is_content, names)):
                continue
        elif len(fences) == 1 and line[1 : fences[0].start()].strip():
            at = start + fences[0].start()
            glued = layout.in_fence(part.start)
            if _is_fence(text, part.stop) and glued:
                continue  # the code block has an end of its own
            if not glued or line[fences[0].end() :].strip():
                raise UnclearAnswerError
        else:
            continue
        text = f"{text[:at]}\n{text[at:]}"
    return text


def _is_fence(text: str, at: int) -> bool:
    """Whether the next line that is not blank is a fence."""
    return bool(FENCE.match(text[at:].lstrip()))
