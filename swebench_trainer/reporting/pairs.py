"""Pairs in a terminal: their counts, what limits their number, and examples.

Answers are untrusted text: nothing in them acts as markup or as a terminal command.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import takewhile

from rich.console import Console
from rich.table import Table
from rich.text import Text

from swebench_trainer.contracts import Bottlenecks, MissingForPair
from swebench_trainer.reporting.console import numbers, print_line, printable, visible
from swebench_trainer.reporting.summaries import PairStats, SurfaceAccuracy
from swebench_trainer.store.draw import draw_key
from swebench_trainer.types import Pair

LISTED = 10
"""Maximum number of repositories and of issues that are listed."""

_MISSING = {
    MissingForPair.NO_CANDIDATES: "no candidates",
    MissingForPair.NO_DECIDED_CANDIDATE: "no candidate has a decided verdict",
    MissingForPair.NO_FAILURE: "all candidates pass",
    MissingForPair.NO_RELIABLE_FAILURE: "every failure is flaky or a timeout",
    MissingForPair.NO_EXPRESSIBLE_FAILURE: (
        "no failure can be written in the answer format"
    ),
    MissingForPair.FAILURES_REPEAT_PASSES: "every failure repeats a pass",
    MissingForPair.FAILURES_REPEAT_GOLD: "every failure repeats gold",
    MissingForPair.CANDIDATES_REPEAT_GOLD: "every candidate repeats gold",
    MissingForPair.NO_PASS: "no candidate passes",
    MissingForPair.NO_TRUSTED_PASS: "no pass is trusted (flags, or [pairs] trust)",
    MissingForPair.NO_PASS_NO_GOLD: (
        "no candidate passes, and gold cannot be written in the answer format"
    ),
    MissingForPair.NO_GOLD: "gold cannot be written in the answer format",
    MissingForPair.PASS_RATE_OUT_OF_RANGE: (
        "pass rate outside min_pass_rate and max_pass_rate"
    ),
}


def print_pairs(
    console: Console, stats: PairStats, examples: Sequence[Pair], lines: int
) -> None:
    """Prints pairs, then the figures of all of them.

    Args:
        console: Where to print.
        stats: Their counts.
        examples: The pairs to show.
        lines: Maximum number of lines per answer; 0 prints all.
    """
    for pair in examples:
        console.rule(Text(printable(pair.instance_id)), align="left", style="cyan")
        for line in origins(pair):
            print_line(console, line)
        console.print(example(pair, lines), highlight=False)
    console.print(counts(stats))
    console.print(limiting(stats))
    for line in surface(stats):
        print_line(console, line)
    if stats.below_trust:
        print_line(
            console,
            f"{stats.below_trust} passes are trusted less than [pairs] trust requires.",
        )
    if not stats.graded:
        print_line(console, "These rejects were not graded; some may be correct.")


def counts(stats: PairStats) -> Table:
    """Pairs by strategy, tier, source of `chosen`, repository, issue and length."""
    table = Table("by", "value", *numbers("pairs"), title=f"{stats.pairs} pairs")
    lengths = asdict(stats.lengths).items()
    groups: Mapping[str, Mapping[str, int]] = {
        "strategy": stats.by_strategy,
        "tier of rejected": stats.by_tier,
        "source of chosen": stats.by_chosen,
        "repository": stats.by_repository,
        "issue": stats.by_instance,
        "length": {name.replace("_", " "): count for name, count in lengths},
    }
    for name, found in groups.items():
        _add_group(table, name, ranked(found.items()))
    return table


def ranked(counts: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """The largest counts first; equal ones by name."""
    return sorted(counts, key=lambda item: (-item[1], item[0]))


def _add_group(table: Table, name: str, ranked: Sequence[tuple[str, int]]) -> None:
    for place, (value, count) in enumerate(ranked[:LISTED]):
        cells = (name if not place else "", visible(str(value)), str(count))
        table.add_row(*map(Text, cells))
    if rest := ranked[LISTED:]:
        pairs = sum(count for _, count in rest)
        table.add_row("", Text(f"{len(rest)} more", "dim"), str(pairs))
    table.add_section()


def bottleneck_lines(found: Bottlenecks) -> list[tuple[str, int]]:
    """What kept the strategy from making more pairs, with counts, the largest first."""
    lines = [
        *((f"instances: {_MISSING[what]}", n) for what, n in found.missing.items()),
        *((f"pairs held back by {key}", n) for key, n in found.held_back.items()),
        *found.other.items(),
    ]
    return ranked(lines)


def limiting(stats: PairStats) -> Table:
    """What kept the strategy from making more pairs, and what plugins dropped."""
    columns = ("reason", *numbers("instances or pairs"))
    table = Table(*columns, title="Why not more pairs")
    dropped = stats.dropped_by_plugins.items()
    lines = bottleneck_lines(stats.bottlenecks)
    lines += [(f"pairs dropped: {reason}", count) for reason, count in dropped]
    for reason, count in ranked(lines):
        table.add_row(Text(visible(reason)), str(count))
    if not lines:
        table.add_row("nothing", "")
    return table


def accuracy_label(surface: SurfaceAccuracy) -> str:
    """Accuracy of the surface-only classifier with its confidence interval."""
    low, high = surface.ci95
    return f"{surface.accuracy:.0%} ({low:.0%} to {high:.0%}; 50% = chance)"


def surface(stats: PairStats) -> list[str]:
    """Lines about the surface-only classifier."""
    found = stats.surface
    if not found:
        return ["Surface-only classifier: not measured, too few pairs."]
    shares = found.chosen_higher.items()
    strongest = sorted(shares, key=lambda item: -abs(item[1] - 0.5))[:3]
    named = (f"{name.replace('_', ' ')} {share:.0%}" for name, share in strongest)
    return [
        f"Surface-only classifier accuracy on {found.pairs} pairs: "
        f"{accuracy_label(found)}.",
        f"Pairs in which chosen has the larger value: {', '.join(named)}.",
    ]


def to_show(pairs: Sequence[Pair], number: int) -> list[Pair]:
    """Up to `number` pairs, spread over the tiers; always the same for the same pairs."""
    by_tier: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        by_tier[pair.tier].append((draw_key(pair.instance_id, place), place))
    turns = (
        (turn, tier, place)
        for tier, drawn in by_tier.items()
        for turn, (_, place) in enumerate(sorted(drawn))
    )
    return [pairs[place] for *_, place in sorted(turns)[:number]]


def origins(pair: Pair) -> list[str]:
    """Lines with the source, model, tier and logs of each answer of a pair."""
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
            words += [f"logs: {log}"] if log else ["not graded"]
            lines.append(visible(" ".join(words)))
    return lines


def example(pair: Pair, lines: int) -> Text:
    """A pair: `+` before the lines of `chosen`, `-` before the lines of `rejected`.

    Args:
        pair: The pair.
        lines: Maximum number of lines of each answer, starting where the two differ; the
            prompt gets fewer. 0 shows everything.
    """
    shared = _shared(pair) if lines else 0
    text = Text()
    texts = (
        (" ", "dim", pair.prompt, 0, lines and max(2, lines // 3)),
        ("+", "green", pair.chosen, shared, lines),
        ("-", "red", pair.rejected, shared, lines),
    )
    for sign, style, content, start, most in texts:
        for line in _shortened(content, start, most):
            text.append(f"{sign} {line}\n", style)
    return text


def _shared(pair: Pair) -> int:
    """Number of equal lines at the start of both answers, minus two for context."""
    answers = ((text or "").split("\n") for text in (pair.chosen, pair.rejected))
    same = takewhile(lambda lines: lines[0] == lines[1], zip(*answers, strict=False))
    return max(0, sum(1 for _ in same) - 2)


def _shortened(content: str | None, start: int, most: int) -> Iterator[str]:
    if content is None:
        return
    found = content.removesuffix("\n").split("\n")
    if start:
        yield f"⋮ {start} identical lines"
    shown = found[start : start + most] if most else found[start:]
    yield from map(visible, shown)
    if rest := len(found) - start - len(shown):
        yield f"⋮ {rest} more lines"
