"""The closing table of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

_TINY = (
    "builtin:tiny is a model of half a million random weights: it learns the training "
    "issues by heart and nothing else. The point of this run is the loop."
)
NAMED = 5
"""So many of the passes that are not believed are named; `summary.json` has all."""

_FAULTS = ("infra_error", "oom", "timeout")


def comparison(
    summary: Mapping[str, Any], candidates: Mapping[str, Any] | None
) -> Table:
    """Base, SFT and DPO side by side.

    Args:
        summary: `summary.json` of the evaluation.
        candidates: `summary.json` of the grade stage, if there was one.
    """
    caption = [_TINY] if summary.get("model") == "builtin:tiny" else []
    caption.append(f"Prompt context: {context_label(summary)}.")
    caption += doubts(summary, candidates)
    table = Table("split", "model", title="resolved", caption=Text("\n".join(caption)))
    table.add_column("resolved", justify="right")
    table.add_column("rate", justify="right")
    table.add_column("95 % interval", justify="right")
    for split, content in summary["splits"].items():
        for model, m in content["models"].items():
            low, high = m["ci95"]
            table.add_row(
                split,
                model,
                f"{m['resolved']} of {m['total']}",
                f"{m['rate']:.1%}",
                f"{low:.1%} to {high:.1%}",
            )
        table.add_section()
    return table


def context_label(summary: Mapping[str, Any]) -> str:
    """What the prompts behind the rates showed, and if that bars a leaderboard.

    Args:
        summary: `summary.json` of the evaluation.
    """
    context = str(summary.get("context", summary["prompt"]))
    if context == "oracle":
        return "oracle, the files that gold touches; not leaderboard-valid"
    return context


def doubts(
    summary: Mapping[str, Any], candidates: Mapping[str, Any] | None
) -> list[str]:
    """What must be known beside the rates: faults of the machine, passes not believed.

    See `comparison` for what is given.
    """
    lines = []
    for split, content in summary["splits"].items():
        for model, m in content["models"].items():
            faults = sum(m["statuses"].get(status, 0) for status in _FAULTS)
            faults -= m.get("explained timeouts", 0)
            if faults:
                lines.append(
                    f"{split}, {model}: {faults} not graded, counted as not resolved"
                )
            if m["flagged"]:
                lines.append(f"{split}, {model}: {_not_believed(m)}")
    if candidates and candidates["flagged"]:
        lines.append(f"candidates: {_not_believed(candidates)}")
    return lines


def _not_believed(counts: Mapping[str, Any]) -> str:
    flags = ", ".join(f"{flag} {count}" for flag, count in counts["flags"].items())
    names = counts["not believed"]
    some = ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
    return f"{counts['flagged']} passes are not believed ({flags}): {some}"
