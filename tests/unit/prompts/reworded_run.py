"""Extracts, grades and pairs damaged answers, with every message reworded if asked to.

    python reworded_run.py FOLDER [reworded]

Prints the results as JSON, without any text for people.
"""

from __future__ import annotations

import ast
import builtins
import json
import random
import sys
import zlib
from collections import Counter
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
TEXTS = {"reason", "hint", "message"}
"""Keyword arguments that are text for people."""


class Reword(ast.NodeTransformer):
    """Replaces the text of every raised error and every reason by other text."""

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        self.generic_visit(node)
        if isinstance(node.exc, ast.Call):
            node.exc.args = [self._reworded(argument) for argument in node.exc.args]
        return node

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        for keyword in node.keywords:
            if keyword.arg in TEXTS:
                keyword.value = self._reworded(keyword.value)
        if isinstance(node.func, ast.Attribute) and node.func.attr == "__init__":
            node.args = [self._reworded(argument) for argument in node.args]
        return node

    @staticmethod
    def _reworded(value: ast.expr) -> ast.expr:
        if isinstance(value, ast.Starred):
            return value
        call = ast.Call(ast.Name("__reworded__", ast.Load()), [value], [])
        return ast.copy_location(call, value)


class Loader(SourceFileLoader):
    """Loads modules of the package with their messages reworded."""

    def get_code(self, fullname: str) -> Any:
        tree = Reword().visit(ast.parse(self.get_data(self.path), self.path))
        return compile(ast.fix_missing_locations(tree), self.path, "exec")


class Finder:
    """Finds the modules of the package."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path)
        if name.partition(".")[0] == "swebench_trainer" and spec and spec.origin:
            spec.loader = Loader(name, spec.origin)
        return spec


def reworded(value: Any) -> Any:
    return f"other words {zlib.crc32(value.encode('utf-8', 'replace'))}" if isinstance(value, str) else value  # fmt: skip


def golds(count: int) -> list[Any]:
    from damage import between

    rng = random.Random(7)
    found = []
    for number in range(count):
        base = {f"src/m{n}.py": b"".join(b"x%d = %d\n" % (n, rng.randrange(9 if number % 2 else 10**6)) for _ in range(24)) for n in range(2)}  # fmt: skip
        after = {p: c.replace(b"\n", b"\ny = 1\n", 1) for p, c in base.items()}
        after["src/m0.py"] = base["src/m0.py"].replace(b" = ", b" == ", 3)
        found.append(between(base, after))
    return found


BLOCK = "{}\n<<<<<<< SEARCH\n{}=======\n{}>>>>>>> REPLACE\n"
BLOCKS = [
    "",
    "I cannot help.",
    BLOCK.format("src/m0.py", "x = 1\n", "x = 1\n"),
    BLOCK.format("src/m0.py", "no such line\n", "y\n"),
    BLOCK.format("../m0.py", "x\n", "y\n"),
    BLOCK.format("new.py", "", "z = (\n"),
    BLOCK.format("new.py", "", "z = 1\n").replace(">>>>>>> REPLACE\n", ""),
    "src/m1.py\n<<<<<<< DELETE\n>>>>>>> DELETE\n",
    "\0",
]


def candidates() -> list[tuple[Any, Any]]:
    """Candidates of each kind of damage and form, with their instance."""
    from damage import DAMAGES, Memory

    from swebench_trainer.answers.candidates import to_candidate
    from swebench_trainer.contracts import Sample
    from swebench_trainer.recipe.models import PromptTable
    from swebench_trainer.types import Instance

    found = []
    for number, gold in enumerate(golds(4)):
        tree = Memory(gold.base)
        instance = Instance(f"i-{number}", "a/b", "0" * 40, "It breaks.", gold.patch)
        rng = random.Random(number)
        cases = [make(rng, gold) for make in DAMAGES.values()]
        answers = [("diff", c.answer, c.finish) for c in cases if c]
        answers += [("search-replace", text, "stop") for text in BLOCKS]
        samples = [(form, text, how, None) for form, text, how in answers]
        samples += [("diff", "", "", patch) for patch in ("", gold.patch, "nonsense")]
        for at, (form, text, finish, patch) in enumerate(samples):
            for files, writer in ((tree, "tree"), (None, "blind")):
                sample = Sample(
                    instance.instance_id, at, text, finish=finish, patch=patch
                )
                prompt = PromptTable(answer=form)
                found.append(
                    (instance, to_candidate(prompt, sample, instance, files, writer))
                )
    return found


class Grader:
    """Gives verdicts by the digest of a patch."""

    def grade(self, jobs: Any) -> Any:
        from swebench_trainer.contracts import Outcome
        from swebench_trainer.types import Status

        ends = (Status.RESOLVED, Status.UNRESOLVED, Status.NOT_APPLIED, Status.OOM)
        for job in jobs:
            end = ends[zlib.crc32(job.candidate.patch.encode()) % len(ends)]
            yield job, Outcome(end, {}, reason="the fake grader decided")


def main() -> None:
    folder = Path(sys.argv[1])
    sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
    if sys.argv[2:]:
        builtins.__reworded__ = reworded  # type: ignore[attr-defined]  # code that the hook rewrites calls it
        sys.meta_path.insert(0, Finder)  # type: ignore[arg-type]  # a class serves as a finder
    from swebench_trainer.answers.checks import check_counts
    from swebench_trainer.contracts import GradedInstance
    from swebench_trainer.grading.ledger import Ledger
    from swebench_trainer.preferences.strategies import Tiered, TieredTable
    from swebench_trainer.preferences.tiers import tier_of, ungraded_tier
    from swebench_trainer.types import as_row

    made = candidates()
    rows = [as_row(candidate) for _, candidate in made]
    reasons = sorted({row["extraction"].pop("reason") for row in rows})
    instances = {instance.instance_id: instance for instance, _ in made}
    ledger = Ledger(folder, instances.values(), run_id="run")
    every = [candidate for _, candidate in made]
    verdicts = ledger.grade(Grader(), every, lambda *_: None)  # type: ignore[arg-type]  # a fake with only what is called
    graded = [
        GradedInstance(
            instance,
            "prompt",
            "gold",
            tuple(
                (candidate, verdict)
                for candidate, verdict in zip(every, verdicts, strict=True)
                if candidate.instance_id == name
            ),
        )
        for name, instance in instances.items()
    ]
    pairs = Tiered(TieredTable(use="tiered")).pairs(graded)
    results = {
        "candidates": rows,
        "counts": as_row(check_counts(every)),
        "outcomes": Counter(str(c.extraction.outcome) for c in every),
        "ungraded": [str(ungraded_tier(candidate)) for candidate in every],
        "verdicts": [(v.status, v.reward, v.explained) for v in verdicts],
        "tiers": [str(tier_of(verdict)) for verdict in verdicts],
        "pairs": [as_row(pair) for pair in pairs],
    }
    print(json.dumps({"results": results, "reasons": reasons}))


if __name__ == "__main__":
    main()
