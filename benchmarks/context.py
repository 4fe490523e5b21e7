"""Contents of prompts: recall of BM25, and coverage of the edited lines by each style.

    python benchmarks/context.py --repositories '/mirrors/{repo}' ROWS.parquet... [--repos owner/name...]

prints two Markdown tables. `--repositories` is `[contents] repositories`. Indexes are built
in an empty cache (cold; terms of unchanged files are shared between commits) and then read
by a new searcher (warm). Tokens are estimated as a third of the bytes.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from statistics import median, quantiles

from swebench_trainer.contents.repositories import Repositories
from swebench_trainer.contracts import PromptInputs, PromptStyle
from swebench_trainer.data.rows import RowsSource, RowsTable
from swebench_trainer.prompts.edits import first_unshown_edit, gold_edits
from swebench_trainer.prompts.oracle import OracleStyle, OracleTable
from swebench_trainer.prompts.ranked_files import Bm25Style, Bm25Table, query
from swebench_trainer.prompts.retrieval import RECALL_AT, Recall, Searcher
from swebench_trainer.types import Instance

BUDGETS = (6144, 13000, 27000)
ROOM = 4096


def instances_of(paths: Iterable[str], repos: list[str]) -> list[Instance]:
    """The instances of the files, sorted by repository."""
    found = [
        instance
        for path in paths
        for instance in RowsSource(RowsTable(use="rows", path=path)).load().instances
        if not repos or instance.repo in repos
    ]
    return sorted(found, key=lambda i: (i.repo, i.instance_id))


def recall_table(instances: list[Instance], trees: Repositories) -> Iterator[str]:
    """Recall and seconds per instance, by repository."""
    recalls: dict[str, Recall] = defaultdict(Recall)
    seconds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    counts: dict[str, int] = defaultdict(int)
    for kind in ("cold", "warm"):
        searcher = Searcher()
        for instance in instances:
            tree = trees.tree(instance.repo, instance.base_commit)
            start = time.monotonic()
            ranked = searcher.rank(tree, query(instance))
            spent = time.monotonic() - start
            for name in (instance.repo, "**all**"):
                seconds[name][kind] += spent
                if kind == "cold":
                    counts[name] += 1
                    recalls[name].add(instance.patch, ranked)
    places = " | ".join(f"@{place}" for place in RECALL_AT)
    yield f"| repository | instances | all gold files {places} | share of them {places} | s cold | s warm |"
    yield "| --- " * (4 + 2 * len(RECALL_AT)) + "|"
    for name in sorted(counts, key=lambda name: (name.startswith("*"), name)):
        every, share = recalls[name].percent()
        cells = [f"{value:.1f} %" for value in (*every, *share)]
        times = [
            f"{seconds[name][kind] / counts[name]:.3f}" for kind in ("cold", "warm")
        ]
        yield f"| {' | '.join([name, str(counts[name]), *cells, *times])} |"


def view_table(instances: list[Instance], trees: Repositories) -> Iterator[str]:
    """Lengths of prompts, and the number that show all lines quoted by the gold answer."""
    yield "| style | `context_tokens` | prompts | dropped | tokens: median | 90 % | most | all edits in view | s a prompt |"
    yield "| --- " * 9 + "|"
    for budget in BUDGETS:
        keys = {"context_tokens": budget, "max_tokens": budget + ROOM}
        styles = (
            OracleStyle(OracleTable(use="oracle", **keys)),
            Bm25Style(Bm25Table(use="bm25", **keys)),
        )
        for style in styles:
            yield f"| `{style.context}` | {budget} | {_seen(style, instances, trees)} |"


def _seen(style: PromptStyle, instances: list[Instance], trees: Repositories) -> str:
    lengths: list[int] = []
    shown = 0
    start = time.monotonic()
    for instance in instances:
        tree = trees.tree(instance.repo, instance.base_commit)
        try:
            prompt = style.render(
                instance, PromptInputs(lambda tree=tree: tree, estimate)
            )
            edits = gold_edits("search-replace", instance, tree)
        except ValueError:
            continue
        lengths.append(estimate(prompt.text))
        shown += not first_unshown_edit(edits, prompt.shown or {})
    spent = (time.monotonic() - start) / len(instances)
    ninth = quantiles(lengths, n=10)[-1]
    cells = (
        len(lengths),
        len(instances) - len(lengths),
        round(median(lengths)),
        round(ninth),
        max(lengths),
        f"{shown} ({100 * shown / len(instances):.1f} %)",
        f"{spent:.2f}",
    )
    return " | ".join(map(str, cells))


def estimate(text: str) -> int:
    """A conservative estimate of tokens."""
    return -(-len(text.encode()) // 3)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="+")
    parser.add_argument("--repositories", required=True)
    parser.add_argument("--repos", nargs="*", default=[])
    options = parser.parse_args()
    names = ("bm25s", "numpy")
    print(
        f"{platform.system()} {platform.release()}, Python {platform.python_version()},",
        ", ".join(f"{name} {version(name)}" for name in names) + "\n",
    )
    instances = instances_of(options.rows, options.repos)
    trees = Repositories(options.repositories)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        for table in (recall_table, view_table):
            for line in table(instances, trees):
                print(line, flush=True)
            print()
    trees.close()


if __name__ == "__main__":
    main()
