"""The built-in plugins: registered through the same hooks as third-party plugins.

This module also wires implementations to their collaborators. Implementations that
load torch are imported inside their factories, so that listing plugins and checking
a recipe stay fast; `tests/unit/test_light_import.py` checks this.
"""

from __future__ import annotations

from swebench_trainer.contracts import Backend, Grader
from swebench_trainer.data.generated.source import GeneratedSource, GeneratedTable
from swebench_trainer.data.pro import ProSource, ProTable
from swebench_trainer.data.rows import RowsSource, RowsTable
from swebench_trainer.data.task_repo import TaskRepoSource, TaskRepoTable
from swebench_trainer.grading.cache import open_run_cache
from swebench_trainer.grading.docker.grader import DockerGrader, DockerTable
from swebench_trainer.grading.namespace.grader import NamespaceGrader, NamespaceTable
from swebench_trainer.grading.stock import StockGrader
from swebench_trainer.hookspecs import Register, hookimpl
from swebench_trainer.preferences.strategies import (
    ApiRejects,
    ApiRejectsTable,
    SelfGenerated,
    SelfGeneratedTable,
    Tiered,
    TieredTable,
    Unpaired,
    UnpairedTable,
)
from swebench_trainer.prompts.oracle import OracleStyle, OracleTable
from swebench_trainer.prompts.ranked_files import (
    Bm25Style,
    Bm25Table,
    ListedStyle,
    ListedTable,
)
from swebench_trainer.prompts.styles import IssueStyle
from swebench_trainer.reporting.publishers import (
    DirectoryPublisher,
    DirectoryTable,
    HubPublisher,
    HubTable,
)
from swebench_trainer.sampling.replay import ReplayBackend, ReplayTable
from swebench_trainer.training.models.table import HfTable


@hookimpl
def register_sources(register: Register) -> None:
    """Rows of the SWE-bench family, SWE-bench Pro, task repos, and generated tasks."""
    register("rows", RowsSource, config=RowsTable)
    register("swebench-pro", ProSource, config=ProTable)
    register("task-repo", TaskRepoSource, config=TaskRepoTable)
    register("generated", GeneratedSource, config=GeneratedTable)


@hookimpl
def register_prompt_styles(register: Register) -> None:
    """The issue only, or with files: from the gold patch, from BM25, or from a list."""
    register("issue", IssueStyle)
    register("bm25", Bm25Style, config=Bm25Table)
    register("files", ListedStyle, config=ListedTable)
    register("oracle", OracleStyle, config=OracleTable)


@hookimpl
def register_backends(register: Register) -> None:
    """Transformers models, and recorded predictions."""

    def hf(table: HfTable) -> Backend:
        """Any causal model, from the Hub or a directory; builtin:tiny, builtin:small."""
        from swebench_trainer.hf import HfBackend

        return HfBackend(table)

    register("hf", hf, config=HfTable)
    register("replay", ReplayBackend, config=ReplayTable)


@hookimpl
def register_graders(register: Register) -> None:
    """The official eval script in Docker, in a namespace, or through the stock harness."""

    def docker(table: DockerTable) -> Grader:
        """A fresh container per distinct patch."""
        return DockerGrader(table, open_run_cache(table))

    def namespace(table: NamespaceTable) -> Grader:
        """Linux namespaces, on task files or on images exported once."""
        return NamespaceGrader(table, open_run_cache(table))

    register("docker", docker, config=DockerTable)
    register("stock", StockGrader)
    register("namespace", namespace, config=NamespaceTable)


@hookimpl
def register_pair_strategies(register: Register) -> None:
    """Passes against failures, gold against failures, or single answers."""
    register("self-generated", SelfGenerated, config=SelfGeneratedTable)
    register("api-rejects", ApiRejects, config=ApiRejectsTable)
    register("tiered", Tiered, config=TieredTable)
    register("unpaired", Unpaired, config=UnpairedTable)


@hookimpl
def register_publishers(register: Register) -> None:
    """A directory, or the Hugging Face Hub."""
    register("directory", DirectoryPublisher, config=DirectoryTable)
    register("hub", HubPublisher, config=HubTable)
