"""Start-up, preparation of a big table, and the quickstart: time and memory.

    python benchmarks/basics.py [ROWS.parquet]
    python benchmarks/basics.py --synthetic 60000

prints a Markdown table. `--synthetic` only prepares that many synthetic rows of about
7 kB, as `.jsonl`, `.json` and `.parquet`. Each command runs in a separate process;
memory is the largest resident set of that process and its children.
"""

from __future__ import annotations

import json
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import Process, Queue
from pathlib import Path
from typing import Any

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
    """Seconds, and largest resident set in MB, of one `swebench-train` command."""

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


def print_row(name: str, runs: list[tuple[float, float]]) -> None:
    """Prints the median time and the peak memory of repeated measurements."""
    seconds = statistics.median(seconds for seconds, _ in runs)
    peak = max(peak for _, peak in runs)
    print(f"| {name} | {seconds:.2f} s | {peak:.0f} MB | {len(runs)} |", flush=True)


def synthetic(count: int) -> Iterator[dict[str, Any]]:
    """Rows as large as SWE-bench's, 120 per repository, each with a different patch."""
    draw = random.Random(0)  # noqa: S311 - synthetic rows
    words = [
        f"{a}{b}"
        for a in ["value", "index", "parse", "token", "frame"]
        for b in range(99)
    ]

    def line() -> str:
        return f"    {draw.choice(words)} = {draw.choice(words)}({draw.choice(words)}, {draw.randrange(999)})\n"

    def patch(path: str, lines: int) -> str:
        head = f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n"
        context = " " + line()
        removed = "".join("-" + line() for _ in range(lines // 3))
        added = "".join("+" + line() for _ in range(lines))
        return (
            f"{head}@@ -9,{lines // 3 + 1} +9,{lines + 1} @@\n{context}{removed}{added}"
        )

    for number in range(count):
        repo = f"owner{number // 120}/name"
        tests = [f"tests/test_{draw.choice(words)}.py::test_{n}" for n in range(40)]
        yield {
            "instance_id": f"owner{number // 120}__name-{number}",
            "repo": repo,
            "base_commit": f"{number:040x}",
            "problem_statement": " ".join(draw.choices(words, k=300)),
            "patch": patch(f"src/{draw.choice(words)}.py", draw.randrange(3, 40)),
            "test_patch": patch("tests/test_x.py", 30),
            "created_at": f"20{number % 20 + 5:02}-01-01T00:00:00Z",
            "FAIL_TO_PASS": tests[:2],
            "PASS_TO_PASS": tests[2:],
        }


def write_synthetic(path: Path, count: int) -> None:
    """Writes synthetic rows to a `.jsonl`, `.json` or `.parquet` file."""
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.Table.from_pylist(list(synthetic(count)))
        pyarrow.parquet.write_table(table, path, row_group_size=1000)
        return
    with path.open("w") as file:
        is_list = path.suffix == ".json"
        file.write("[" if is_list else "")
        for number, content in enumerate(synthetic(count)):
            file.write((",\n" if is_list and number else "") + json.dumps(content))
            file.write("" if is_list else "\n")
        file.write("]" if is_list else "")


def measure_synthetic(count: int) -> None:
    """Prepares synthetic rows once from each file format."""
    with tempfile.TemporaryDirectory() as scratch:
        for suffix in (".jsonl", ".json", ".parquet"):
            path = Path(scratch, f"rows{suffix}")
            writer = Process(target=write_synthetic, args=(path, count))
            writer.start()
            writer.join()
            size = path.stat().st_size / 1e6
            recipe = Path(scratch, "recipe.toml")
            recipe.write_text(RECIPE.format(path=path, answer="diff"))
            run = measure([str(recipe), "--runs-dir", f"{scratch}/runs{suffix}"])
            print_row(f"prepare {count} rows, `{suffix}` of {size:.0f} MB", [run])
            path.unlink()


def main() -> None:
    """Measures and prints."""
    if sys.argv[1:2] == ["--synthetic"]:
        print(
            "| command | median | largest process | runs |\n| --- | --- | --- | --- |"
        )
        measure_synthetic(int(sys.argv[2]))
        return
    rows = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else None
    print(f"{platform.platform()}, Python {platform.python_version()}\n")
    print("| command | median | largest process | runs |\n| --- | --- | --- | --- |")
    print_row("`swebench-train --help`", [measure(["--help"]) for _ in range(10)])
    check = ["check", "recipes/quickstart.toml"]
    print_row("`swebench-train check`", [measure(check) for _ in range(5)])
    with tempfile.TemporaryDirectory() as scratch:
        for answer in ("diff", "search-replace") if rows else ():
            recipe = Path(scratch, f"{answer}.toml")
            recipe.write_text(RECIPE.format(path=rows, answer=answer))
            runs = [
                measure([str(recipe), "--runs-dir", f"{scratch}/{answer}{n}"])
                for n in range(3)
            ]
            print_row(f"prepare {rows.name if rows else ''}, {answer}", runs)
        quickstart = ["recipes/quickstart.toml", "--runs-dir", scratch]
        print_row("`swebench-train recipes/quickstart.toml`", [measure(quickstart)])


if __name__ == "__main__":
    main()
