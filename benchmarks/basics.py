"""Start-up, preparation of a big table, and the quickstart: time and memory.

    python benchmarks/basics.py [ROWS.parquet]

prints a Markdown table. Each command runs in a process of its own; memory is the
largest resident set among it and its children.
"""

from __future__ import annotations

import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing import Process, Queue
from pathlib import Path

ROOT = Path(__file__).parents[1]
RECIPE = """\
schema_version = 1
name = "rows"
[data]
use = "rows"
path = "{path}"
[prompt]
answer = "{answer}"
"""


def measure(arguments: list[str]) -> tuple[float, float]:
    """Seconds and largest resident set in MB of one `swebench-train` command."""

    def child(results: Queue[tuple[float, float]]) -> None:
        start = time.monotonic()
        command = [sys.executable, "-m", "swebench_trainer", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        results.put((time.monotonic() - start, peak))

    results: Queue[tuple[float, float]] = Queue()
    process = Process(target=child, args=(results,))
    process.start()
    found = results.get()
    process.join()
    return found


def row(what: str, runs: list[tuple[float, float]]) -> None:
    """Prints medians of repeated measurements."""
    seconds = statistics.median(seconds for seconds, _ in runs)
    peak = max(peak for _, peak in runs)
    print(f"| {what} | {seconds:.2f} s | {peak:.0f} MB | {len(runs)} |", flush=True)


def main() -> None:
    """Measures and prints."""
    rows = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else None
    print(f"{platform.platform()}, Python {platform.python_version()}\n")
    print("| what | median | largest process | runs |\n| --- | --- | --- | --- |")
    row("`swebench-train --help`", [measure(["--help"]) for _ in range(10)])
    check = ["check", "recipes/quickstart.toml"]
    row("`swebench-train check`", [measure(check) for _ in range(5)])
    with tempfile.TemporaryDirectory() as scratch:
        for answer in ("diff", "search-replace") if rows else ():
            recipe = Path(scratch, f"{answer}.toml")
            recipe.write_text(RECIPE.format(path=rows, answer=answer))
            runs = [
                measure([str(recipe), "--runs-dir", f"{scratch}/{answer}{n}"])
                for n in range(3)
            ]
            row(f"prepare {rows.name if rows else ''}, {answer}", runs)
        quickstart = ["recipes/quickstart.toml", "--runs-dir", scratch]
        row("`swebench-train recipes/quickstart.toml`", [measure(quickstart)])


if __name__ == "__main__":
    main()
