"""Text around an answer: thoughts, and tags such as `<patch>`."""

from __future__ import annotations

import re

_THOUGHTS = ("think", "thinking", "thought", "reasoning", "analysis", "scratchpad")
_ANSWERS = ("answer", "final", "final_answer", "solution", "patch", "diff")
_THOUGHT = re.compile(rf"^<({'|'.join(_THOUGHTS)})>", re.IGNORECASE | re.MULTILINE)
_THOUGHT_END = re.compile(rf"</({'|'.join(_THOUGHTS)})>[ \t\r]*$", re.I | re.M)
# No line of a diff starts with `<`, so a tag that does is not part of one.
_ANSWER = re.compile(rf"^<({'|'.join(_ANSWERS)})>", re.IGNORECASE | re.MULTILINE)
_DIFF = re.compile(r"^(?:diff --git |--- .*\n\+\+\+ |@@ )", re.MULTILINE)


def without_thoughts(text: str) -> str:
    """The text after the last thought; a thought without an end extends to the end.

    A thought may begin in the prompt, so the text may only have its end.
    """
    # A line of a diff may also end like this.
    ends = [e for e in _THOUGHT_END.finditer(text) if not _inside_hunk(text, e.start())]
    text = text[ends[-1].end() :] if ends else text
    begin = _THOUGHT.search(text)
    return text[: begin.start()] if begin else text


def _inside_hunk(text: str, at: int) -> bool:
    return text[text.rfind("\n", 0, at) + 1 : at][:1] in ("+", "-", " ")


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
        re.finditer(rf"{re.escape(closer)}[ \t\r]*$", text[start:stop], re.I | re.M)
    )
    return start + ends[-1].start() if ends else None
