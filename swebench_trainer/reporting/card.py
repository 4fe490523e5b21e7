"""The model card: how the model was made, and by how much training helped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from swebench_trainer.reporting.tables import contamination, context_label, doubts
from swebench_trainer.types import LeakageReport

_FRONT = """\
---
{base}library_name: {library}
tags:
- swebench
- swebench-trainer
---
"""


def model_card(
    name: str,
    stage: str,
    *,
    settings: Mapping[str, Any],
    summary: Mapping[str, Any] | None,
    candidates: Mapping[str, Any] | None,
    is_adapter: bool,
    leakage: Mapping[str, Any] | None = None,
) -> str:
    """The card as Markdown with the Hub's front matter.

    Args:
        name: Name of the run.
        stage: The training stage whose weights are released.
        settings: The resolved recipe.
        summary: `summary.json` of the evaluation, if there was one.
        candidates: `summary.json` of the grade stage, if there was one.
        is_adapter: Whether the weights are a PEFT adapter.
        leakage: `leakage.json` of the prepare stage, if it has one.
    """
    settings = _public(settings)
    base = (settings.get("model") or {}).get("name", "")
    front = _FRONT.format(
        base=f"base_model: {base}\n" if "/" in base else "",
        library="peft" if is_adapter else "transformers",
    )
    parts = [
        front,
        f"# {name}",
        f"{'An adapter for' if is_adapter else 'All weights of'} `{base}` after "
        f"{stage.upper()}, made by swebench-trainer.",
        *_data(LeakageReport.parse(leakage)),
        "## Evaluation",
        _evaluation(summary, candidates),
        "## Recipe",
        f"```json\n{json.dumps(settings, indent=2)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _data(leakage: LeakageReport | None) -> list[str]:
    """What the model was trained on, as far as it bears on what the rates mean."""
    if not leakage:
        return []
    sides = f"{leakage.train} training instances, {leakage.heldout} held out."
    if leakage.heldout and not leakage.findings:
        sides += (
            " They share no instance, no commit with a file that both gold patches "
            "touch, and no gold patch."
        )
    warnings = [f"**{line}.**" for line in contamination(leakage)]
    return ["## Data", sides, *warnings]


def _public(value: Any) -> Any:
    """Settings for the public, without what is known of our machines.

    Of a path on this machine only its last part is left, of an address other than a
    web page's only its kind, and nobody's name or password in any.
    """
    if isinstance(value, Mapping):
        return {key: _public(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_public(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if value.startswith("/"):
        return PurePosixPath(value).name
    kind, found, rest = value.partition("://")
    if not found:
        return value
    if kind not in ("http", "https"):
        return f"{kind}://..."
    host, slash, path = rest.partition("/")
    return f"{kind}://{host.rpartition('@')[2]}{slash}{path}"


def _evaluation(
    summary: Mapping[str, Any] | None, candidates: Mapping[str, Any] | None
) -> str:
    if summary is None:
        return "This run had no evaluation."
    lines = [
        "Graded by the official SWE-bench harness; prompt style "
        f"`{summary['prompt']}`, context: {context_label(summary)}.",
        "",
        "| split | model | resolved | rate | 95 % interval |",
        "| --- | --- | --- | --- | --- |",
    ]
    for split, content in summary["splits"].items():
        for model, m in content["models"].items():
            low, high = m["ci95"]
            lines.append(
                f"| {split} | {model} | {m['resolved']} of {m['total']} "
                f"| {m['rate']:.1%} | {low:.1%} to {high:.1%} |"
            )
    if "train" in summary["splits"]:
        lines.append("\nThe model was trained on the split `train`.")
    return "\n".join([*lines, *(f"\n{line}." for line in doubts(summary, candidates))])
