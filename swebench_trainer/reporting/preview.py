"""The output of `swebench-train preview`: samples in tokens, lengths, dropped rows.

Texts come from strangers: nothing in them is markup or a terminal control sequence,
and invisible characters are spelled out. Lines that the loss covers have a bar in
front, so that they stand out without color, too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text

from swebench_trainer.contracts import TokenView
from swebench_trainer.recipe.models import Recipe
from swebench_trainer.reporting.console import numbers, print_line, printable, visible
from swebench_trainer.types import Split

LEGEND = (
    "The model is trained on lines marked ▌; the rest is context. … marks a continued "
    "line. Invisible characters are shown by code, such as <U+001B>."
)
_LEARNED, _SPECIAL, _NOTE = "green", "bold magenta", "dim"
_BAR = 12
"""Width of the longest bar of a histogram, in characters."""

TOO_LONG_SHOWN = 10
"""Maximum number of too long examples that are listed by name."""


@dataclass(frozen=True)
class Example:
    """One prepared instance in tokens.

    Attributes:
        context: Content of its prompt; see `PromptStyle`.
        learned: Whether it has an answer that SFT would learn.
        view: Its tokens; with texts for samples, with lengths only for the rest.
    """

    instance_id: str
    split: Split
    context: str
    learned: bool
    view: TokenView

    @property
    def length(self) -> int:
        """Tokens of prompt and answer."""
        return self.view.prompt_tokens + self.view.answer_tokens


@dataclass(frozen=True)
class Preview:
    """The prompts and answers of a recipe.

    Attributes:
        examples: Every prepared instance of the requested splits.
        samples: The examples to show, with their texts.
        dropped: Rows of `dropped.jsonl`, from both splits.
    """

    examples: tuple[Example, ...]
    samples: tuple[Example, ...]
    dropped: tuple[dict[str, str], ...]

    def too_long(self, max_tokens: int) -> list[Example]:
        """Examples that SFT would drop for their length."""
        return [e for e in self.examples if e.learned and e.length > max_tokens]


def print_preview(
    console: Console, recipe: Recipe, preview: Preview, lines: int
) -> None:
    """Prints the samples, then lengths and dropped rows of all examples.

    Args:
        console: Where to print.
        recipe: The recipe that was previewed.
        preview: Its prompts and answers.
        lines: Maximum number of lines per prompt; 0 prints all.
    """
    for example in preview.samples:
        console.rule(Text(printable(example.instance_id)), align="left", style="cyan")
        print_line(console, _headline(example, recipe.prompt.max_tokens))
        console.print(marked_lines(example.view, lines), highlight=False)
    if preview.samples:
        console.rule(style="cyan")
        print_line(console, LEGEND)
    views = [example.view for example in preview.examples]
    prompts = [view.prompt_tokens for view in views]
    answers = [view.answer_tokens for view in views]
    console.print(length_histogram(prompts, answers, recipe.prompt.max_tokens))
    for line in _length_lines(recipe, preview):
        print_line(console, line)
    if preview.dropped:
        console.print(dropped_table(preview.dropped))
    else:
        print_line(console, "No rows were dropped.")


def _headline(example: Example, max_tokens: int) -> str:
    view = example.view
    facts = [
        f"{example.split}: prompt {view.prompt_tokens:,} tokens",
        f"context {printable(example.context)}",
    ]
    if example.learned:
        fate = "kept" if example.length <= max_tokens else "too long, dropped"
        facts.append(f"answer {view.answer_tokens:,} including its end token")
        facts.append(f"total {example.length:,} of {max_tokens:,}: {fate}")
    if view.altered:
        facts.append("the tokenizer cannot reproduce this answer byte for byte")
    return ", ".join(facts)


def _length_lines(recipe: Recipe, preview: Preview) -> Iterator[str]:
    limit = recipe.prompt.max_tokens
    learned = sum(example.learned for example in preview.examples)
    too_long = preview.too_long(limit)
    yield (
        f"{len(preview.examples)} instances, {learned} with an answer to train on; "
        f"{len(too_long)} exceed max_tokens = {limit:,} and would be dropped"
    )
    for example in too_long[:TOO_LONG_SHOWN]:
        yield f"  {example.instance_id}: {example.length:,}"
    if rest := len(too_long[TOO_LONG_SHOWN:]):
        yield f"  and {rest} more"
    if altered := sum(example.view.altered for example in preview.examples):
        yield f"{altered} answers contain characters that the tokenizer changes"
    if learned and recipe.sft is None:
        yield "The recipe has no [sft]: these answers are not trained on."
    elif learned and recipe.sft and len(too_long) / learned > recipe.sft.max_dropped:
        yield (
            "Training would fail: more answers are too long than [sft] max_dropped = "
            f"{recipe.sft.max_dropped} allows. Raise [prompt] max_tokens or choose "
            "less context."
        )


@dataclass
class _Line:
    learned: bool
    continued: bool = False
    spans: list[tuple[str, bool]] = field(default_factory=list)
    """Texts, and whether each is a special token."""


def marked_lines(view: TokenView, lines: int) -> Text:
    """A prompt with its answer, line by line, with a bar before learned lines.

    Args:
        view: The tokens, with their texts.
        lines: Approximate number of lines to show of the part that is only read, from
            its beginning and its end; 0 shows all.
    """
    text = Text()
    for line in _shortened(_lines(view), lines):
        if isinstance(line, int):
            text.append(f"  ⋮ {line} more lines\n", _NOTE)
            continue
        style = _LEARNED if line.learned else ""
        text.append("▌" if line.learned else " ", style)
        text.append("…" if line.continued else " ", _NOTE)
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
    if lines and not lines[-1].spans:  # after the last newline
        lines.pop()
    return lines


def _shortened(lines: Sequence[_Line], most: int) -> list[_Line | int]:
    """Replaces the middle of the part that is only read by its number of lines."""
    read = sum(not line.learned for line in lines)
    if not most or read <= most + 1:  # the note takes a line, too
        return list(lines)
    head, tail = (most + 1) // 2, most // 2
    return [*lines[:head], read - most, *lines[read - tail :]]


def length_histogram(
    prompts: Sequence[int], answers: Sequence[int], max_tokens: int
) -> Table:
    """A histogram of the tokens of prompts, answers, and both together.

    Args:
        prompts: Tokens of each prompt.
        answers: Tokens of each answer, in the same order; 0 without an answer.
        max_tokens: Maximum length of a training row, which becomes a bin edge.
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
    table = Table("tokens up to", *columns, title="lengths")
    for bin_ in range(first, last + 1):
        edge = edges[bin_]
        name = f"{edge:,}" + (" = max_tokens" if edge == max_tokens else "")
        style = "red" if edge > max_tokens else ""
        bars = [_bar(counts, bin_) for counts in binned.values()]
        table.add_row(Text(name, style), *bars)
    table.add_section()
    for name, share in (("median", 0.5), ("90th percentile", 0.9), ("maximum", 1)):
        table.add_row(name, *(_quantile(values, share) for values in columns.values()))
    return table


def _edges(longest: int, max_tokens: int) -> list[int]:
    """Upper edges of the bins: powers of two, and `max_tokens`."""
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


def dropped_table(dropped: Sequence[Mapping[str, str]]) -> Table:
    """Dropped rows by origin and cause, with example ids."""
    ids: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in dropped:
        ids[row["from"], row["cause"]].append(row["instance_id"])
    columns = ("dropped from", "reason", *numbers("rows"), "examples")
    table = Table(*columns, title="dropped")
    for (place, reason), names in sorted(ids.items(), key=lambda item: -len(item[1])):
        cells = (place, reason, str(len(names)), ", ".join(names[:3]))
        table.add_row(*map(Text, map(visible, cells)))
    return table
