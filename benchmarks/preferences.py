"""What each way to make pairs gives on real bugs, graded in Docker.

    python tests/realtasks/build.py build/realtasks
    python benchmarks/preferences.py RUNS_DIR

runs `recipes/realtasks.toml` with `self-generated`, serves its SFT model with
`transformers serve`, and goes on from the same SFT model with that server as the writer
of rejects (`api-rejects`, through the `openai` plugin). It prints a Markdown table with
the pairs by tier and the rates of each run. Needs Docker, `swebench-trainer-openai` and
`transformers[serving]`. A run that was stopped goes on.

Both runs differ from the recipe by `SETTINGS`: its SFT model knows the nine issues by
heart and hardly fails, so here it stops earlier and writes more.
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
"""What differs from the recipe. No gold answer has as many tokens as these may have."""
SERVED_SAMPLES = 4
"""Answers of the server to each issue, which it writes far slower than our sampler."""
SAMPLING = '{"do_sample": true, "eos_token_id": 1, "pad_token_id": 0}'
"""Without it the server answers every sample with the most likely tokens."""
SHARED = ("prepare", "admit", "sft")
"""Stages of the first run from which the second goes on."""
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
    chosen = ", ".join(f"{count} {by}" for by, count in stats["by chosen"].items())
    cells = [stats["strategy"], candidates, stats["pairs"], chosen, tiers]
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
