"""What each way to make pairs gives on real bugs, graded in Docker.

    python tests/realtasks/build.py build/realtasks
    python benchmarks/preferences.py RUNS_DIR

runs `recipes/realtasks.toml` as it is (`self-generated`), serves its SFT model with
`transformers serve`, and runs the recipe again with that server as the writer of rejects
(`api-rejects`, through the `openai` plugin). It prints a Markdown table with the pairs by
tier and the rates of each run. Needs Docker, `swebench-trainer-openai` and
`transformers[serving]`. A run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swebench_trainer.testing import served_model

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes/realtasks.toml"
SERVED = """\
extends = "{recipe}"
[generate.model]
use = "openai"
name = "{model}"
base_url = "{url}/v1"
api_key_env = ""
concurrency = 2
timeout = 600
[pairs]
use = "api-rejects"
max_format = {max_format}
"""


def run(recipe: Path, name: str, runs: Path, settings: Sequence[str]) -> Path:
    """Runs a recipe, or goes on with it; gives the folder of its stages."""
    changes = [f"name={name}", *settings]
    options = [part for change in changes for part in ("--set", change)]
    command = [sys.executable, "-m", "swebench_trainer", "run", str(recipe), *options]
    subprocess.run(
        [*command, "--runs-dir", str(runs)], check=True, cwd=ROOT, stdout=sys.stderr
    )
    return runs / name / "stages"


def row(stages: Path) -> str:
    """A strategy's line of the table."""
    stats = _read(stages / "pairs/stats.json")
    splits = _read(stages / "evaluate/summary.json")["splits"]
    with (stages / "generate/candidates.jsonl").open() as lines:
        candidates = sum(1 for _ in lines)
    tiers = ", ".join(f"{count} {tier}" for tier, count in stats["by tier"].items())
    cells = [stats["strategy"], candidates, stats["pairs"], tiers]
    for model in ("base", "sft", "dpo"):
        rates = (found["models"][model] for found in splits.values())
        cells.append(", ".join(f"{r['resolved']} of {r['total']}" for r in rates))
    return f"| {' | '.join(map(str, cells))} |"


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--max-format", type=float, default=1.0)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    asked = parser.parse_args()
    runs = asked.runs.resolve()
    runs.mkdir(parents=True, exist_ok=True)
    print(f"{platform.platform()}, Python {platform.python_version()}\n")
    own = [*asked.settings, f"pairs.max_format={asked.max_format}"]
    itself = run(RECIPE, "self-generated", runs, own)
    model = itself / "sft/model"
    with served_model(model, runs / "serve.log") as url:
        recipe = runs / "api-rejects.toml"
        recipe.write_text(
            SERVED.format(
                recipe=RECIPE, model=model, url=url, max_format=asked.max_format
            )
        )
        served = run(recipe, "api-rejects", runs, asked.settings)
    print(
        "| strategy | candidates | pairs | by tier of the reject | base | SFT | DPO |\n"
        "| --- | --- | --- | --- | --- | --- | --- |"
    )
    for stages in (itself, served):
        print(row(stages))


if __name__ == "__main__":
    main()
