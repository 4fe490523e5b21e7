"""Compares pair strategies on real bugs, graded in Docker.

    python tests/realtasks/build.py build/realtasks
    python benchmarks/preferences.py RUNS_DIR

runs `recipes/realtasks.toml` with `self-generated`, serves its SFT model with
`transformers serve`, and continues from the same SFT model with rejects from that server
(`api-rejects`, through the `openai` plugin). It prints a Markdown table with the pairs by
tier and the resolve rates of both runs. An interrupted run is resumed. Needs Docker,
`swebench-trainer-openai` and `transformers[serving]`.

Both runs override the recipe with `SETTINGS`: its SFT model has memorized the nine issues
and rarely fails, so here training stops earlier and more answers are sampled.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swebench_trainer.testing import served_model

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes/realtasks.toml"
SETTINGS = (
    "prompt.search_context=0",
    "sft.epochs=60",
    "generate.samples=16",
    "generate.temperature=0.5",
    "generate.max_new_tokens=1792",
    "pairs.max_per_instance=8",
    "pairs.max_format=0.75",
    "evaluate.max_new_tokens=1792",
)
"""Overrides of the recipe. The token limits are above the length of every gold answer."""
SERVED_SAMPLES = 4
"""Answers per issue from the server, which is much slower than our sampler."""
SAMPLING = '{"do_sample": true, "eos_token_id": 1, "pad_token_id": 0}'
"""Without it the server decodes every sample greedily."""
SHARED = ("prepare", "admit", "sft")
"""Stages of the first run that the second one reuses."""
SERVED = """\
extends = "{recipe}"
[generate.model]
use = "openai"
name = "{model}"
base_url = "{url}/v1"
api_key_env = ""
concurrency = 2
timeout = 600
body = {{ generation_config = '{sampling}' }}
[pairs]
use = "api-rejects"
"""


def run(recipe: Path, name: str, runs: Path, settings: Sequence[str]) -> Path:
    """Runs or resumes a recipe; returns the directory of its stages."""
    changes = [f"name={name}", *settings]
    options = [part for change in changes for part in ("--set", change)]
    command = [sys.executable, "-m", "swebench_trainer", "run", str(recipe), *options]
    subprocess.run(
        [*command, "--runs-dir", str(runs)], check=True, cwd=ROOT, stdout=sys.stderr
    )
    return runs / name / "stages"


def row(stages: Path) -> str:
    """The table row of a strategy."""
    stats = _read(stages / "pairs/stats.json")
    splits = _read(stages / "evaluate/summary.json")["splits"]
    with (stages / "generate/candidates.jsonl").open() as lines:
        candidates = sum(1 for _ in lines)
    tiers = ", ".join(f"{count} {tier}" for tier, count in stats["by_tier"].items())
    chosen = ", ".join(f"{count} {by}" for by, count in stats["by_chosen"].items())
    cells = [stats["strategy"], candidates, stats["pairs"], chosen, tiers]
    for model in ("base", "sft", "dpo"):
        rates = (found["models"][model] for found in splits.values())
        cells.append(", ".join(f"{r['resolved']} of {r['total']}" for r in rates))
    return f"| {' | '.join(map(str, cells))} |"


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def main() -> None:
    """Runs both recipes and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    asked = parser.parse_args()
    runs = asked.runs.resolve()
    runs.mkdir(parents=True, exist_ok=True)
    print(f"{platform.platform()}, Python {platform.python_version()}\n")
    settings = [*SETTINGS, *asked.settings]
    itself = run(RECIPE, "self-generated", runs, settings)
    others = runs / "api-rejects/stages"
    for stage in SHARED:
        if not (others / stage).exists():
            shutil.copytree(itself / stage, others / stage)
    model = itself / "sft/model"
    with served_model(model, runs / "serve.log") as url:
        recipe = runs / "api-rejects.toml"
        recipe.write_text(
            SERVED.format(recipe=RECIPE, model=model, url=url, sampling=SAMPLING)
        )
        fewer = f"generate.samples={SERVED_SAMPLES}"
        run(recipe, "api-rejects", runs, [*settings, fewer])
    print(
        "| strategy | candidates | pairs | by chosen | by tier of the reject "
        "| base | SFT | DPO |\n| --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    for stages in (itself, others):
        print(row(stages))


if __name__ == "__main__":
    main()
