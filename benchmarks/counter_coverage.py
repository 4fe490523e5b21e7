"""How many instances have tests that can be changed, by strength and repository.

    python benchmarks/counter_coverage.py ROWS... [--check 3] [--missing STRENGTH]

prints a Markdown table. ROWS are files of SWE-bench rows (`.parquet`, `.jsonl`); those of
SWE-bench Pro get an empty run script, which the changes do not depend on. Nothing runs:
a change is counted if its patch applies to files that are rebuilt from the hunks of the
test patch, keeps the number of every line, and still has the same functions in it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from swebench_trainer.data.columns import instance_from_row
from swebench_trainer.data.pro import pro_instance
from swebench_trainer.data.rows import read_rows_file
from swebench_trainer.grading.counter.changes import TestChange, proposed_changes
from swebench_trainer.grading.counter.python_source import visible_functions
from swebench_trainer.grading.counter.scripts import TestScript
from swebench_trainer.grading.counter.test_files import TestPatch
from swebench_trainer.types import Instance, Strength


def instances(path: Path) -> Iterator[Instance]:
    """The instances of a file."""
    for row in read_rows_file(path):
        if "eval_script" in row:
            yield instance_from_row(row, source=path.name)
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name, row["instance_id"])
            folder.mkdir()
            (folder / "run_script.sh").write_text("true\n")
            (folder / "parser.py").write_text("")
            yield pro_instance(row, folder=Path(name), digests={}, source=path.name)


def old_files(patch: str) -> dict[str, str]:
    """Files to which a patch applies: its old lines, and numbered lines between them."""
    files: dict[str, list[str]] = {}
    path, number, rest = "", 0, 0
    for row in patch.split("\n"):
        if rest <= 0 and row.startswith("--- "):
            path = row[4:].removeprefix("a/").rstrip("\t")
        elif rest <= 0 and row.startswith("@@ "):
            old, new = row.split()[1:3]
            start, _, size = old[1:].partition(",")
            number = int(start) - 1
            rest = int(size or 1) + int(new.partition(",")[2] or 1)
        elif rest > 0 and not row.startswith("\\"):
            rest -= 2 if row[:1] in (" ", "") else 1
            if row[:1] != "+" and path != "/dev/null":
                lines = files.setdefault(path, [])
                lines += [f"line {n + 1}" for n in range(len(lines), number)]
                lines.append(row[1:])
                number += 1
    return {name: "\n".join([*lines, ""]) for name, lines in files.items()}


def applied(patches: list[str], paths: tuple[str, ...]) -> dict[str, list[str]] | None:
    """The lines of files after some patches; `None` if git refuses one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, text in old_files(patches[0]).items():
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        for patch in patches:
            command = ["git", "apply", "-v", "-"]
            done = subprocess.run(
                command, cwd=folder, input=patch.encode(), capture_output=True
            )
            if done.returncode:
                print(done.stderr.decode(), file=sys.stderr)
                return None
        return {path: (folder / path).read_text().split("\n") for path in paths}


def flaw(instance: Instance, change: TestChange) -> str:
    """What is wrong with a change, as far as its text shows; empty if nothing."""
    original = TestScript.of(instance)
    derived = TestScript.of(replace(instance, eval_script=change.eval_script))
    if original.applies:
        patches = [derived.patch]
    else:
        heads = change.eval_script.split("<<'EOF_114329324912'\n")[1:]
        patches = [original.patch, *(h.partition("EOF_1143")[0] for h in heads)]
    shown = TestPatch(original.patch).files
    paths = tuple(path for path in change.files if path in shown)
    before = applied([original.patch], paths)
    after = applied(patches, paths)
    if before is None or after is None:
        return "git refuses the patch"
    if any(len(before[path]) != len(after[path]) for path in paths):
        return "lines are added or lost"
    if change.strength is not Strength.CANARY and before == after:
        return "nothing changes"
    if original.applies and functions(original.patch) != functions(derived.patch):
        return "functions changed"
    return ""


def functions(patch: str) -> list[str]:
    """The test functions that are visible in a patch, except those of one line."""
    return [
        function.key
        for path, file in TestPatch(patch).files.items()
        if path.endswith(".py")
        for function in visible_functions(file, lambda name: name.startswith("test"))
        if function.node.body[0].lineno != function.node.lineno
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="+", type=Path)
    parser.add_argument("--check", type=int, default=3, help="changes of each strength")
    parser.add_argument("--missing", type=Strength, help="list instances without it")
    options = parser.parse_args()
    totals: Counter[str] = Counter()
    counts: Counter[tuple[str, Strength | str]] = Counter()
    flaws = 0
    for instance in (i for path in options.rows for i in instances(path)):
        found: dict[Strength, list[TestChange]] = {s: [] for s in Strength}
        for change in proposed_changes(instance):
            found[change.strength].append(change)
        for strength, changes in found.items():
            for change in changes[: options.check]:
                if reason := flaw(instance, change):
                    flaws += 1
                    print(instance.instance_id, strength, reason, file=sys.stderr)
        if options.missing and not found[options.missing]:
            print(instance.instance_id, file=sys.stderr)
        best = next((s for s in Strength if found[s]), "none")
        for repo in (instance.repo, "all"):
            totals[repo] += 1
            counts[repo, f"best {best}"] += 1
            counts.update((repo, s) for s in Strength if found[s])
    print(f"| repository | instances | {' | '.join(Strength)} | none |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for repo, total in sorted(totals.items()):
        shares = [f"{counts[repo, s] / total:.0%}" for s in Strength]
        print(
            f"| {repo} | {total} | {' | '.join(shares)} | {counts[repo, 'best none']} |"
        )
    print(f"\n{flaws} flaws")


if __name__ == "__main__":
    main()
