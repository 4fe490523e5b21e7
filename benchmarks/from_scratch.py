"""What `recipes/from-scratch.toml` reaches: rates by seed, and by training time.

    python benchmarks/from_scratch.py RUNS_DIR
    python benchmarks/from_scratch.py RUNS_DIR --seeds 0 --curve 500 1000 --set sft.epochs=1

prints two Markdown tables. The first has base, SFT and DPO model on the same held-out
issues, a row per seed, and how many of the answers of `[generate]`, which the SFT model
wrote, and of the greedy ones of both are right: of those that quote the line to change
alone, and of those that quote more. It tells of the greedy ones how many are right that
quote a ticket, and of the quotes of SFT's that are not in the file, how many are but for
their digits. The second has the SFT model alone, a row per number of training tasks,
each trained to the end of its own schedule. What was stopped goes on when it is called
again; times are those of the stages, summed over such calls.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes/from-scratch.toml"
LEFT_OUT = ("generate", "pairs", "dpo", "publish")
"""Tables that the curve does without."""
QUOTED = re.compile(r"<<<<<<< SEARCH\n(.*?)^=======$", re.DOTALL | re.MULTILINE)
"""What the first block of an answer searches for."""
TICKET = re.compile(r"icket \d{6}")
"""A ticket in it, if with a slip."""


def run(recipe: Path, name: str, runs: Path, settings: Sequence[str]) -> Path:
    """Runs a recipe, or goes on with it; gives its run directory."""
    options = [
        part for setting in (f"name={name}", *settings) for part in ("--set", setting)
    ]
    command = [sys.executable, "-m", "swebench_trainer", "run", str(recipe), *options]
    subprocess.run(
        [*command, "--runs-dir", str(runs)], check=True, cwd=ROOT, stdout=sys.stderr
    )
    return runs / name


def minutes(folder: Path) -> Counter[str]:
    """Minutes that each stage took."""
    taken: Counter[str] = Counter()
    for line in (folder / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "StageFinished" and not event["skipped"]:
            taken[event["stage"]] += event["seconds"] / 60
    return taken


def heldout(folder: Path) -> dict[str, Any]:
    """What the evaluation says of the held-out issues."""
    summary = json.loads((folder / "stages/evaluate/summary.json").read_text())
    return summary["splits"]["heldout"]


def rate(model: dict[str, Any]) -> str:
    """A rate with its interval."""
    low, high = model["ci95"]
    share = f"{model['rate']:.1%} ({low:.1%} to {high:.1%})"
    return f"{model['resolved']}/{model['total']}, {share}"


def seed_row(folder: Path, seed: int) -> str:
    """A row of the first table."""
    found, taken = heldout(folder), minutes(folder)
    (pair,) = (
        pair["result"]
        for pair in found["comparisons"]
        if (pair["first"], pair["second"]) == ("sft", "dpo")
    )
    greedy = [quotes(folder / f"stages/evaluate/{name}") for name in ("sft", "dpo")]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    cells = [
        str(seed),
        *(rate(found["models"][name]) for name in ("base", "sft", "dpo")),
        f"{pair['only_first']} / {pair['only_second']}",
        f"{pair['p_value']:.1g}",
        by_quote(quotes(folder / "stages/grade", folder / "stages/generate")),
        *map(by_quote, greedy),
        " / ".join(map(with_ticket, greedy)),
        slips(folder, "sft"),
        f"{taken['sft']:.1f} / {taken['dpo']:.1f} / {taken.total():.1f}",
        f"{peak:.1f} GB",
    ]
    return f"| {' | '.join(cells)} |"


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of a stage."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def quotes(graded: Path, written_in: Path | None = None) -> list[tuple[str, bool]]:
    """What each answer with a block searches for, and whether the answer is right.

    Args:
        graded: Directory of `verdicts.jsonl`.
        written_in: That of `candidates.jsonl`, if it is another.
    """
    statuses = {
        (verdict["instance_id"], verdict["sample"]): verdict["status"]
        for verdict in rows(graded / "verdicts.jsonl")
    }
    return [
        (quoted[1], statuses[answer["instance_id"], answer["sample"]] == "resolved")
        for answer in rows((written_in or graded) / "candidates.jsonl")
        if (quoted := QUOTED.search(answer["text"]))
    ]


def by_quote(answers: Sequence[tuple[str, bool]]) -> str:
    """How many answers are right that quote one line, and that quote more of them."""
    alone = [right for quote, right in answers if quote.count("\n") == 1]
    more = [right for quote, right in answers if quote.count("\n") != 1]
    return " / ".join(
        f"{sum(some)} of {len(some)} ({sum(some) / len(some):.0%})"
        for some in (alone, more)
        if some
    )


def with_ticket(answers: Sequence[tuple[str, bool]]) -> str:
    """How many answers are right that quote a ticket."""
    found = [right for quote, right in answers if TICKET.search(quote)]
    return f"{sum(found)} of {len(found)}"


def slips(folder: Path, model: str) -> str:
    """How many greedy answers quote what is in the file but for its digits, of those that quote what is not."""
    prompts = {
        row["instance_id"]: row["prompt"]
        for row in rows(folder / "stages/prepare/prompts.jsonl")
    }
    wrong = in_digits = 0
    for answer in rows(folder / f"stages/evaluate/{model}/candidates.jsonl"):
        quoted, prompt = QUOTED.search(answer["text"]), prompts[answer["instance_id"]]
        if quoted and quoted[1] not in prompt:
            wrong += 1
            in_digits += without_digits(quoted[1]) in without_digits(prompt)
    return f"{in_digits} of {wrong}"


def without_digits(text: str) -> str:
    """A text that is equal to those that differ from it in digits alone."""
    return re.sub(r"\d", "0", text)


def without_dpo(runs: Path) -> Path:
    """The recipe with no more than SFT and its evaluation."""
    tables = re.split(r"(?m)^(?=\[)", RECIPE.read_text())
    kept = [t for t in tables if not t.startswith(tuple(f"[{n}]" for n in LEFT_OUT))]
    path = runs / "sft-alone.toml"
    path.write_text("".join(kept))
    return path


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--curve", type=int, nargs="*", default=[1000, 2000, 4000])
    parser.add_argument("--set", action="append", default=[], dest="settings")
    asked = parser.parse_args()
    runs = asked.runs.resolve()
    runs.mkdir(parents=True, exist_ok=True)
    print(f"{platform.platform()}, Python {platform.python_version()}\n")
    if asked.seeds:
        print(
            "| seed | base | SFT | DPO | only SFT / only DPO | p | right when quoting one line / more | the same of greedy answers of SFT | of DPO | right when quoting a ticket: SFT / DPO | wrong quotes of SFT: in digits alone / all | minutes: SFT / DPO / all | peak memory so far |"
        )
        print(f"|{' --- |' * 13}")
    for seed in asked.seeds:
        settings = [*asked.settings, f"seed={seed}"]
        folder = run(RECIPE, f"from-scratch-{seed}", runs, settings)
        print(seed_row(folder, seed), flush=True)
    if asked.curve:
        print("\n| training tasks | minutes of SFT | SFT |\n| --- | --- | --- |")
    for count in asked.curve:
        settings = [*asked.settings, f"data.count={count}", "data.graded=0"]
        folder = run(without_dpo(runs), f"tasks-{count}", runs, settings)
        taken, models = minutes(folder), heldout(folder)["models"]
        print(f"| {count} | {taken['sft']:.1f} | {rate(models['sft'])} |", flush=True)


if __name__ == "__main__":
    main()
