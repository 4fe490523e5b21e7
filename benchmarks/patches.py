"""Damaged patches: how many give the right tree, with our repair and swebench's.

    python benchmarks/patches.py ROWS.parquet... [--per-kind 20] [--seed 0] [--show KIND]

prints a Markdown table. Real gold patches are damaged by the seeded corrupter of
tests/unit/prompts/damage.py. An answer counts as right if a strict `git apply` of
the patch taken from it gives the tree that the undamaged patch gives, and as wrong
if it gives any other; else it is refused, by us or by git.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pyarrow.parquet as pq
from swebench.inference.make_datasets.utils import extract_diff, repair_patch

from swebench_trainer.answers.forms import extract_patch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests/unit/prompts"))

from damage import UNKNOWABLE, Case, Memory, applied, variants  # noqa: E402 - the tests are found first


def ours(case: Case) -> str:
    """The patch that we extract from an answer; empty if refused."""
    return extract_patch(
        "diff", case.answer, Memory(case.base), finish=case.finish
    ).patch


def without_finish(case: Case) -> str:
    """Like `ours`, without the finish of the answer."""
    return extract_patch("diff", case.answer, Memory(case.base)).patch


def theirs(case: Case) -> str:
    """The patch from swebench's own functions."""
    return repair_patch(extract_diff(case.answer)) or ""


def extracted(case: Case) -> str:
    """The patch extracted by swebench, without repair."""
    return extract_diff(case.answer) or ""


SYSTEMS: dict[str, Callable[[Case], str]] = {
    "ours": ours,
    "ours, end not told": without_finish,
    "`extract_diff`": extracted,
    "`repair_patch(extract_diff)`": theirs,
}


def outcome(case: Case, patch: str) -> str:
    """`right`, `wrong` or `refused`."""
    tree = applied(case.base, patch) if patch.strip() else None
    if tree is None or tree == case.base:
        return "refused"
    return "right" if tree == case.expected else "wrong"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="+", type=Path)
    parser.add_argument("--per-kind", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", help="print the answers of a kind that go wrong")
    options = parser.parse_args()
    patches = [
        row["patch"]
        for path in options.rows
        for row in pq.read_table(path, columns=["patch"]).to_pylist()
    ]
    counts: dict[str, Counter[tuple[str, str]]] = {}
    seconds: Counter[str] = Counter()
    for case in variants(patches, options.per_kind, options.seed):
        if options.show and case.kind != options.show:
            continue
        for name, system in SYSTEMS.items():
            start = time.perf_counter()
            patch = system(case)
            seconds[name] += time.perf_counter() - start
            found = outcome(case, patch)
            counts.setdefault(case.kind, Counter())[name, found] += 1
            wanted = "refused" if case.kind in UNKNOWABLE else "right"
            if options.show and name == "ours" and found != wanted:
                status = extract_patch(
                    "diff", case.answer, Memory(case.base), finish="stop"
                ).extraction
                print(f"===== {found} {status}\n{case.answer}\n----- {patch}")
    print(f"{platform.platform()}, Python {platform.python_version()},")
    print(f"swebench {version('swebench')}, seed {options.seed}\n")
    print(f"| damage | answers | {' | '.join(SYSTEMS)} |")
    print("| --- | --- |" + " --- |" * len(SYSTEMS))
    for kind, counter in counts.items():
        _row(kind, counter)
    for title, kinds in (
        ("all decidable cases", counts.keys() - set(UNKNOWABLE)),
        ("all undecidable cases", counts.keys() & set(UNKNOWABLE)),
    ):
        _row(f"**{title}**", sum((counts[kind] for kind in kinds), Counter()))
    answers = sum(sum(counter.values()) for counter in counts.values()) // len(SYSTEMS)
    times = (f"{name} {1000 * seconds[name] / answers:.1f}" for name in SYSTEMS)
    print(f"\nMilliseconds an answer: {', '.join(times)}")


def _row(title: str, counter: Counter[tuple[str, str]]) -> None:
    total = sum(n for (name, _), n in counter.items() if name == "ours")
    cells = []
    for name in SYSTEMS:
        wrong = counter[name, "wrong"]
        cells.append(
            f"{counter[name, 'right']}" + (f", **{wrong} wrong**" if wrong else "")
        )
    print(f"| {title} | {total} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
