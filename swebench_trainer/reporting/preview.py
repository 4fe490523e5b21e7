"""The output of `swebench-train preview`: samples, lengths, and dropped rows."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from swebench_trainer.contracts import TokenView
from swebench_trainer.recipe.models import Recipe
from swebench_trainer.reporting.console import print_line, printable
from swebench_trainer.reporting.samples import (
    LEGEND,
    dropped_table,
    length_histogram,
    marked_lines,
)
from swebench_trainer.types import Split

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
    _print_lengths(console, recipe, preview)
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


def _print_lengths(console: Console, recipe: Recipe, preview: Preview) -> None:
    limit = recipe.prompt.max_tokens
    views = [example.view for example in preview.examples]
    prompts = [view.prompt_tokens for view in views]
    console.print(
        length_histogram(prompts, [view.answer_tokens for view in views], limit)
    )
    learned = sum(example.learned for example in preview.examples)
    too_long = preview.too_long(limit)
    print_line(
        console,
        f"{len(views)} instances, {learned} with an answer to train on; "
        f"{len(too_long)} exceed max_tokens = {limit:,} and would be dropped",
    )
    for example in too_long[:TOO_LONG_SHOWN]:
        print_line(console, f"  {example.instance_id}: {example.length:,}")
    if rest := len(too_long[TOO_LONG_SHOWN:]):
        print_line(console, f"  and {rest} more")
    if altered := sum(view.altered for view in views):
        print_line(
            console, f"{altered} answers contain characters that the tokenizer changes"
        )
    if learned and recipe.sft is None:
        print_line(
            console, "The recipe has no [sft]: these answers are not trained on."
        )
    elif learned and recipe.sft and len(too_long) / learned > recipe.sft.max_dropped:
        print_line(
            console,
            "Training would fail: more answers are too long than [sft] max_dropped = "
            f"{recipe.sft.max_dropped} allows. Raise [prompt] max_tokens or choose "
            "less context.",
        )
