"""Preparation of whole data sets with each prompt style and answer format.

    python benchmarks/prepare.py --repositories 'file:///mirrors/{repo}' ROWS.parquet...

prints a Markdown table: training rows and dropped rows by reason, and time and memory of
`swebench-train run --until prepare` in a separate process. `--repositories` is
`[contents] repositories`. The cache starts empty and is shared by the runs, so the first
one fills it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from multiprocessing import Process, Queue
from pathlib import Path

from swebench_trainer.prompts.retrieval import RETRIEVED, Recall
from swebench_trainer.store.jsonl import each_row

STYLES = ("issue", "oracle", "bm25")
FORMS = ("search-replace", "diff")
RECIPE = """\
schema_version = 1
name = "{name}"
[data]
use = "rows"
path = "{path}"
[contents]
places = ["git"]
repositories = "{repositories}"
always = true
[prompt]
use = "{style}"
answer = "{form}"
"""


def measure(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds, and peak resident set in MB, of a command and its children."""

    def child(results: Queue[tuple[float, float]]) -> None:
        start = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        results.put((time.monotonic() - start, peak))

    results: Queue[tuple[float, float]] = Queue()
    process = Process(target=child, args=(results,))
    process.start()
    found = results.get()
    process.join()
    return found


def prepare(rows: Path, style: str, form: str, repositories: str, scratch: Path) -> str:
    """A row of the table."""
    name = f"{rows.stem}-{style}-{form}"
    recipe = scratch / f"{name}.toml"
    recipe.write_text(
        RECIPE.format(
            name=name,
            path=rows.absolute(),
            style=style,
            form=form,
            repositories=repositories,
        )
    )
    runs = scratch / "runs"
    command = [sys.executable, "-m", "swebench_trainer", "run", str(recipe)]
    seconds, peak = measure(
        [*command, "--until", "prepare", "--runs-dir", str(runs)],
        {**os.environ, "XDG_CACHE_HOME": str(scratch / "cache")},
    )
    stage = runs / name / "stages" / "prepare"
    taught = (stage / "sft.jsonl").read_text().count("\n")
    train = sum('"split": "train"' in line or '"split":"train"' in line
                for line in (stage / "instances.jsonl").open())  # fmt: skip
    dropped = [json.loads(line) for line in (stage / "dropped.jsonl").open()]
    return (
        f"| {rows.stem} | {style} | {form} | {train} | {taught} | {reasons(dropped)} | "
        f"{recall_of(stage)} | {seconds:.1f} s | {peak:.0f} MB |"
    )


def recall_of(stage: Path) -> str:
    """Recall of the gold files at each cutoff; empty for a style without retrieval."""
    recall = Recall()
    for instance, prompt in zip(
        each_row(stage / "instances.jsonl"),
        each_row(stage / "prompts.jsonl"),
        strict=True,
    ):
        if RETRIEVED in prompt:
            recall.add(instance["patch"], prompt[RETRIEVED])
    found = (", ".join(f"{p:.1f}" for p in percents) for percents in recall.percent())
    return "; ".join(found) if recall.instances else ""


def reasons(dropped: list[dict[str, str]]) -> str:
    """The causes with their counts."""
    kinds = Counter(f"{row['from']}: {row['cause']}" for row in dropped)
    return "; ".join(f"{n} x {kind}" for kind, n in kinds.most_common()) or "none"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="+", type=Path)
    parser.add_argument("--repositories", required=True)
    parser.add_argument("--styles", nargs="+", default=STYLES)
    options = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()},")
    print(f"git {subprocess.check_output(['git', '--version'], text=True).split()[2]},")
    print(f"bm25s {version('bm25s')}\n")
    print(
        "| rows | style | form | training split | taught | dropped | % with all, and % of, "
        "gold files in the first 1, 5, 10 | time | largest process |"
    )
    print("| --- " * 9 + "|")
    with tempfile.TemporaryDirectory() as scratch:
        for rows in options.rows:
            for style in options.styles:
                for form in FORMS:
                    cells = prepare(
                        rows, style, form, options.repositories, Path(scratch)
                    )
                    print(cells, flush=True)


if __name__ == "__main__":
    main()
