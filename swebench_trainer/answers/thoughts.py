"""Separates thoughts from the answer; `markup` has the forms.

The answer is the text after the last thought. A text that may be both, such as a patch
before a thought or between unknown tags, is refused rather than merged.
"""

from __future__ import annotations

from collections.abc import Iterator

from swebench_trainer.answers.errors import UnclearAnswerError
from swebench_trainer.answers.layout import Layout, LayoutOf
from swebench_trainer.answers.markup import Kind, Mark, marks


def without_thoughts(text: str, layout_of: LayoutOf) -> str:
    """The text after the last thought; a thought without an end extends to the end.

    A thought may begin in the prompt, so the text may only have its end.

    Raises:
        UnclearAnswerError: A part of a patch may belong to a thought or to the answer.
    """
    layout = layout_of(text)
    reading = _Reading(layout, layout_of)
    for mark in _counting(layout):
        reading.add(mark)
    answer = reading.answer()
    if answer != text:
        answer = answer.lstrip(" \t")  # the answer may follow on the same line
    if layout_of(answer).parts:
        if reading.is_followed_by_patch():
            raise UnclearAnswerError
    elif reading.is_preceded_by_patch():
        raise UnclearAnswerError
    return answer


def _counting(layout: Layout) -> Iterator[Mark]:
    """The marks that count; one inside a patch is content, with few exceptions.

    A draft may end in the middle of its last line. A mark there ends a thought that
    began outside of the patch, if nothing else does.

    Raises:
        UnclearAnswerError: A mark at the end of a hunk may be content or the end of a
            thought that began in the prompt.
    """
    found = [*marks(layout)]
    outside = [mark for mark in found if not mark.inside]
    ends = [m.start for m in outside if m.form.kind in (Kind.CLOSE, Kind.ANSWER)]
    opened = [mark for mark in outside if mark.form.kind is Kind.OPEN]
    pending = opened[0].start if opened else None
    for mark in found:
        if not mark.inside:
            yield mark
        elif mark.form.kind not in (Kind.CLOSE, Kind.ANSWER) or any(
            end > mark.start for end in ends
        ):
            continue
        elif pending is not None and pending < mark.start:
            yield mark
        elif (
            _is_glued(layout, mark)
            and not _is_paired(layout, mark, found)
            and layout.has_part(mark.end, len(layout.text))
        ):
            raise UnclearAnswerError


def _is_glued(layout: Layout, mark: Mark) -> bool:
    """Whether a mark follows the last line of a hunk, or precedes the next one."""
    line = layout.text.rfind("\n", 0, mark.start) + 1
    before = layout.text[line : mark.start]
    if not (before.startswith(("+", "- ")) and before[1:].strip()):
        return False
    part = layout.part_at(mark.start) or range(0)
    rest = layout.text[mark.end : part.stop].strip()
    return not rest or rest.startswith(("--- ", "diff --git "))


def _is_paired(layout: Layout, mark: Mark, others: list[Mark]) -> bool:
    """Whether the same part has an opening before the mark."""
    part = layout.part_at(mark.start) or range(0)
    return any(
        other.form.kind is Kind.OPEN and part.start <= other.start < mark.start
        for other in others
    )


class _Reading:
    """What the marks of a text, in order, say about it.

    Args:
        layout: The text.
        layout_of: Finds the parts of a patch in a piece of it.
    """

    def __init__(self, layout: Layout, layout_of: LayoutOf) -> None:
        self._layout = layout
        self._layout_of = layout_of
        self._start = 0
        self._stop: int | None = None
        self._pending: Mark | None = None
        self._thought_before = False
        self._earlier: list[range] = []
        """Text that no thought contains, before the answer."""

    def add(self, mark: Mark) -> None:
        """Takes the next mark into account."""
        kind = mark.form.kind
        if kind is Kind.TURN:
            kind = Kind.ANSWER if self._thought_before else Kind.END
        if kind is Kind.OPEN:
            self._thought_before = True
            if self._pending is None:
                self._pending = mark
        elif kind in (Kind.CLOSE, Kind.ANSWER) or self._pending is not None:
            self._begin_after(mark)
        elif self._stop is None:
            self._stop = mark.start

    def _begin_after(self, mark: Mark) -> None:
        """The thought ends here, and perhaps the answer begins."""
        first = not (self._thought_before or self._earlier or self._start)
        stop = self._pending.start if self._pending else mark.start
        # Without an opening it began in the prompt, unless it is a mention in prose.
        if not first or self._pending or not _is_at_line_end(self._layout, mark):
            self._earlier.append(range(self._start, stop))
        self._start, self._stop, self._pending = mark.end, None, None
        self._thought_before = True

    def answer(self) -> str:
        """The text after the last thought."""
        text = self._layout.text
        if self._pending is not None:
            return text[self._start : self._pending.start]
        if self._start == 0:
            return text  # what follows the end of a message counts as prose
        return text[self._start : self._stop]

    def is_followed_by_patch(self) -> bool:
        """Whether a thought or a message after the answer has a part of a patch."""
        ends = [self._stop, self._pending.start if self._pending else None]
        behind = min((end for end in ends if end is not None), default=None)
        return behind is not None and self._has_patch(behind, None)

    def is_preceded_by_patch(self) -> bool:
        """Whether a patch stands before the last thought, but in none for certain."""
        pending = self._pending
        if pending is not None and not pending.form.certain:
            return self._has_patch(pending.end, None)
        return any(self._has_patch(e.start, e.stop) for e in self._earlier)

    def _has_patch(self, start: int, stop: int | None) -> bool:
        # A patch that follows a mark on the same line only shows in the piece.
        return bool(self._layout_of(self._layout.text[start:stop]).parts)


def _is_at_line_end(layout: Layout, mark: Mark) -> bool:
    stop = layout.text.find("\n", mark.end)
    return not layout.text[mark.end : stop if stop >= 0 else None].strip()
