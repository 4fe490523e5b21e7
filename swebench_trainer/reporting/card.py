"""The model card: how the model was trained, and how much training helped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from swebench_trainer.reporting.run_report import (
    caveats,
    comparison_rows,
    contamination,
    context_label,
    has_counter_runs,
)
from swebench_trainer.reporting.summaries import RunResults
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
    results: RunResults,
    is_adapter: bool,
) -> str:
    """The card in Markdown, with the front matter of the Hugging Face Hub.

    Args:
        name: Name of the run.
        stage: Training stage that produced the weights.
        settings: The resolved recipe.
        results: Results of the run.
        is_adapter: Whether the weights are a PEFT adapter.
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
        f"{'A LoRA adapter for' if is_adapter else 'Full weights of'} `{base}` after "
        f"{stage.upper()}, trained with swebench-trainer.",
        *_data(results.leakage),
        "## Evaluation",
        _evaluation(results),
        "## Recipe",
        f"```json\n{json.dumps(settings, indent=2)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _data(leakage: LeakageReport | None) -> list[str]:
    """Sizes of the splits, and overlap between them."""
    if not leakage:
        return []
    sizes = f"{leakage.train} training instances and {leakage.heldout} held-out ones."
    if leakage.heldout and not leakage.findings:
        sizes += (
            " No issue, gold patch, or file that gold patches change at the same commit "
            "is on both sides."
        )
    warnings = [f"**{line}.**" for line in contamination(leakage)]
    return ["## Data", sizes, *warnings]


def _public(value: Any) -> Any:
    """Settings without details of this machine.

    Absolute paths keep only their last part, addresses other than web pages only their
    scheme, and no address keeps a user name or password.
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


def _evaluation(results: RunResults) -> str:
    summary = results.evaluation
    if summary is None:
        return "This model was not evaluated."
    trusted = has_counter_runs(summary)
    lines = [
        "Graded by the official SWE-bench harness. Prompt style: "
        f"`{summary.prompt}`. Context: {context_label(summary)}.",
        "",
        "| split | model | resolved | rate | 95% interval |" + " trusted |" * trusted,
        "| --- | --- | --- | --- | --- |" + " --- |" * trusted,
    ]
    lines += [f"| {' | '.join(row)} |" for row in comparison_rows(summary)]
    if trusted:
        lines.append(
            "\nA pass is trusted if the same patch also fails official tests that were "
            "changed so that they must fail."
        )
    if "train" in summary.splits:
        lines.append("\nThe model was trained on the `train` split.")
    lines += [f"\n{line}." for line in caveats(summary, results.grading)]
    return "\n".join(lines)
