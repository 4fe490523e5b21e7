"""Pairs for a terminal: how many of what, what limits them, and some to look at.

Answers are what models wrote: nothing in them is markup or a command.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

from rich.table import Table
from rich.text import Text

from swebench_trainer.reporting.samples import visible
from swebench_trainer.store.digest import digest
from swebench_trainer.types import Pair

LISTED = 10
"""So many repositories and issues are listed, those with most pairs."""

_COUNTS = {
    "by strategy": "strategy",
    "by tier": "tier of rejected",
    "by chosen": "chosen",
    "by repository": "repository",
    "by instance": "issue",
    "lengths": "length",
}


def counts(stats: Mapping[str, Any]) -> Table:
    """Pairs by strategy, tier, source of `chosen`, repository, issue and length.

    Args:
        stats: `stats.json` of the stage.
    """
    table = Table("by", "what", title=f"{stats['pairs']} pairs")
    table.add_column("pairs", justify="right")
    for key, name in _COUNTS.items():
        found = sorted(stats[key].items(), key=lambda item: (-item[1], item[0]))
        for place, (what, count) in enumerate(found[:LISTED]):
            cells = (name if not place else "", visible(str(what)), str(count))
            table.add_row(*map(Text, cells))
        if rest := found[LISTED:]:
            pairs = sum(count for _, count in rest)
            table.add_row("", Text(f"and {len(rest)} more", "dim"), str(pairs))
        table.add_section()
    return table


def limiting(stats: Mapping[str, Any]) -> Table:
    """What kept the strategy from making more, and what plugins left out."""
    table = Table("what limits the count", title="limits")
    table.add_column("instances or pairs", justify="right")
    dropped = {f"dropped: {why}": n for why, n in stats["dropped by plugins"].items()}
    reasons = {**stats["limits"], **dropped}
    for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
        named = f"pairs held back by {reason}" if _is_key(reason) else reason
        table.add_row(Text(visible(named)), str(count))
    if not reasons:
        table.add_row("nothing", "")
    return table


def _is_key(reason: str) -> bool:
    """Whether a reason is the name of a recipe's key, not a phrase."""
    return " " not in reason and "_" in reason.replace("mix.", "_")


def surface(stats: Mapping[str, Any]) -> list[str]:
    """What the surface of answers gives away, a line each."""
    found = stats["surface"]
    if not found:
        return ["Too few pairs to say how well their surface tells them apart."]
    low, high = found["ci95"]
    told = (
        f"Their surface alone tells {found['told apart']:.0%} of {found['pairs']} pairs "
        f"apart ({low:.0%} to {high:.0%}; 50% is blind)."
    )
    shares = found["chosen has more"].items()
    far = sorted(shares, key=lambda item: -abs(item[1] - 0.5))[:3]
    named = (f"{name} {share:.0%}" for name, share in far)
    return [told, f"Pairs in which chosen has more: {', '.join(named)}."]


def to_show(pairs: Sequence[Pair], number: int) -> list[Pair]:
    """Some of the pairs: one of each tier as far as they go, always the same ones."""
    turns: dict[str, int] = {}
    ranked = []
    drawn = sorted(
        enumerate(pairs), key=lambda item: digest([item[1].instance_id, item[0]])
    )
    for place, pair in drawn:
        turn = turns[pair.tier] = turns.get(pair.tier, -1) + 1
        ranked.append((turn, pair.tier, place))
    return [pairs[place] for *_, place in sorted(ranked)[:number]]


def origins(pair: Pair) -> list[str]:
    """Where the answers of a pair come from, a line each."""
    sides = (
        ("chosen", pair.chosen_source, pair.chosen_model, pair.chosen_log),
        ("rejected", pair.rejected_source, pair.rejected_model, pair.rejected_log),
    )
    lines = []
    for side, source, model, log in sides:
        if source:
            words = [f"{side}: {source}"]
            words += [f"of {model}"] if model else []
            tier = pair.tier if side == "rejected" else pair.chosen_tier
            words += [f"({tier})"] if tier else []
            words += ["restyled"] if side == "rejected" and pair.restyled else []
            words += [f"logs: {log}"] if log else ["not run"]
            lines.append(visible(" ".join(words)))
    return lines


def example(pair: Pair, lines: int) -> Text:
    """A pair: `+` before the lines of what is preferred, `-` before the others.

    Args:
        pair: The pair.
        lines: Show about so many lines of each answer, from where they part, and fewer
            of the prompt; 0 shows all.
    """
    alike = _alike(pair) if lines else 0
    text = Text()
    texts = (
        (" ", "dim", pair.prompt, 0, lines and max(2, lines // 3)),
        ("+", "green", pair.chosen, alike, lines),
        ("-", "red", pair.rejected, alike, lines),
    )
    for sign, style, content, start, most in texts:
        for line in _shortened(content, start, most):
            text.append(f"{sign} {line}\n", style)
    return text


def _alike(pair: Pair) -> int:
    """Lines with which both answers begin, but for two that show where one is."""
    answers = ((text or "").split("\n") for text in (pair.chosen, pair.rejected))
    same = takewhile(lambda lines: lines[0] == lines[1], zip(*answers, strict=False))
    return max(0, sum(1 for _ in same) - 2)


def _shortened(content: str | None, start: int, most: int) -> Iterator[str]:
    if content is None:
        return
    found = content.removesuffix("\n").split("\n")
    if start:
        yield f"⋮ {start} lines in which both are alike"
    shown = found[start : start + most] if most else found[start:]
    yield from map(visible, shown)
    if rest := len(found) - start - len(shown):
        yield f"⋮ {rest} more lines"
