"""Prompts and answers in tokens, for a terminal.

All texts are a stranger's: nothing in them is markup or a command to the
terminal, and what cannot be seen is spelled out. The loss is on the lines with a
bar before them, so that it can be seen without colour, too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rich.table import Table
from rich.text import Text

from swebench_trainer.contracts import TokenView

LEGEND = (
    "Lines behind ▌ are learned, the others are read. … before a line: it goes on "
    "with the line above. <U+001B>: a character that cannot be seen."
)
_LEARNED, _SPECIAL, _ASIDE = "green", "bold magenta", "dim"
_BAR = 12
"""Width of the longest bar of a histogram, in characters."""


@dataclass
class _Line:
    learned: bool
    continued: bool = False
    spans: list[tuple[str, bool]] = field(default_factory=list)
    """Texts, and whether each is a special token."""


def visible(text: str) -> str:
    """The text with each character spelled out that a terminal hides or obeys."""
    return "".join(
        c if c.isprintable() or c == "\t" else f"<U+{ord(c):04X}>" for c in text
    )


def sample(view: TokenView, lines: int) -> Text:
    """A row line by line, learned lines behind a bar.

    Args:
        view: The row with its texts.
        lines: Show about so many lines of what is only read, from its beginning
            and its end; 0 shows all.
    """
    text = Text()
    for line in _shortened(_lines(view), lines):
        if isinstance(line, int):
            text.append(f"  ⋮ {line} more lines\n", _ASIDE)
            continue
        style = _LEARNED if line.learned else ""
        text.append("▌" if line.learned else " ", style)
        text.append("…" if line.continued else " ", _ASIDE)
        for content, special in line.spans:
            text.append(visible(content), _SPECIAL if special else style)
        text.append("\n")
    return text


def _lines(view: TokenView) -> list[_Line]:
    lines: list[_Line] = []
    for part in view.parts:
        for number, content in enumerate(part.text.split("\n")):
            last = lines[-1] if lines else None
            if number or last is None:
                lines.append(_Line(part.trained))
            elif last.learned != part.trained and last.spans:
                lines.append(_Line(part.trained, continued=True))
            else:
                last.learned = part.trained
            if content:
                lines[-1].spans.append((content, part.special))
    if lines and not lines[-1].spans:  # behind the last newline
        lines.pop()
    return lines


def _shortened(lines: Sequence[_Line], most: int) -> list[_Line | int]:
    """The lines without the middle of what is read; a number says how many it had."""
    read = sum(not line.learned for line in lines)
    if not most or read <= most + 1:  # a note is as long as one line
        return list(lines)
    head, tail = (most + 1) // 2, most // 2
    return [*lines[:head], read - most, *lines[read - tail :]]


def lengths(prompts: Sequence[int], answers: Sequence[int], max_tokens: int) -> Table:
    """A histogram of the tokens of prompts, answers, and both together.

    Args:
        prompts: Tokens of each prompt.
        answers: Tokens of each answer in the same order; 0 where there is none.
        max_tokens: Longest row that is trained on, an edge of the histogram.
    """
    totals = [p + a for p, a in zip(prompts, answers, strict=True)]
    columns = {
        "prompt": list(prompts),
        "answer": [answer for answer in answers if answer],
        "prompt + answer": [t for t, a in zip(totals, answers, strict=True) if a],
    }
    edges = _edges(max(totals), max_tokens)
    binned = {
        name: Counter(bisect_left(edges, value) for value in values)
        for name, values in columns.items()
    }
    first = min(bin_ for counts in binned.values() for bin_ in counts)
    last = bisect_left(edges, max(totals))
    table = Table("tokens up to", title="lengths")
    for name in columns:
        table.add_column(name)
    for bin_ in range(first, last + 1):
        edge = edges[bin_]
        name = f"{edge:,}" + (" = max_tokens" if edge == max_tokens else "")
        style = "red" if edge > max_tokens else ""
        bars = [_bar(counts, bin_) for counts in binned.values()]
        table.add_row(Text(name, style), *bars)
    table.add_section()
    for name, share in (("half", 0.5), ("nine of ten", 0.9)):
        table.add_row(name, *(_quantile(values, share) for values in columns.values()))
    table.add_row("all", *(_quantile(values, 1) for values in columns.values()))
    return table


def _edges(longest: int, max_tokens: int) -> list[int]:
    """Upper ends of the bins: powers of two and `max_tokens`."""
    edges = [32]
    while edges[-1] < longest:
        edges.append(2 * edges[-1])
    return sorted({*edges, max_tokens})


def _bar(counts: Counter[int], bin_: int) -> Text:
    count = counts[bin_]
    if not count:
        return Text()
    width = max(1, round(_BAR * count / max(counts.values())))
    return Text(f"{'█' * width} {count}")


def _quantile(values: Iterable[int], share: float) -> str:
    ordered = sorted(values)
    if not ordered:
        return ""
    return f"{ordered[max(0, -(-int(share * 100) * len(ordered) // 100) - 1)]:,}"


def reasons(dropped: Sequence[Mapping[str, str]]) -> Table:
    """What was dropped from where, and why, with the ids of some."""
    ids: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in dropped:
        ids[row["from"], row["reason"].partition(" (")[0]].append(row["instance_id"])
    table = Table("dropped from", "why", title="dropped")
    table.add_column("rows", justify="right")
    table.add_column("such as")
    for (place, reason), names in sorted(ids.items(), key=lambda item: -len(item[1])):
        cells = (place, reason, str(len(names)), ", ".join(names[:3]))
        table.add_row(*(Text(visible(cell)) for cell in cells))
    return table
