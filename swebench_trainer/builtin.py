"""The built-in plugins: registered through the same hooks as third-party plugins.

This module also wires implementations to their collaborators. Implementations that
load torch are imported inside their factories, so that listing plugins and checking
a recipe stay fast; `tests/unit/test_light_import.py` checks this.
"""

from __future__ import annotations

from swebench_trainer.contracts import Backend, Grader
from swebench_trainer.data import pro, rows, task_repo
from swebench_trainer.data.generated import source as generated
from swebench_trainer.grading.cache import open_run_cache
from swebench_trainer.grading.docker.grader import DockerGrader, DockerTable
from swebench_trainer.grading.namespace.grader import NamespaceGrader, NamespaceTable
from swebench_trainer.grading.stock import StockGrader
from swebench_trainer.hookspecs import Register, hookimpl
from swebench_trainer.preferences import strategies
from swebench_trainer.prompts import oracle, ranked_files
from swebench_trainer.prompts.styles import IssueStyle
from swebench_trainer.reporting import publishers
from swebench_trainer.sampling import replay
from swebench_trainer.training.models.table import HfTable


@hookimpl
def register_sources(register: Register) -> None:
    """Rows of the SWE-bench family, SWE-bench Pro, task repos, and generated tasks."""
    register("rows", rows.RowsSource, config=rows.RowsTable)
    register("swebench-pro", pro.ProSource, config=pro.ProTable)
    register("task-repo", task_repo.TaskRepoSource, config=task_repo.TaskRepoTable)
    register("generated", generated.GeneratedSource, config=generated.GeneratedTable)


@hookimpl
def register_prompt_styles(register: Register) -> None:
    """The issue only, or with files: from the gold patch, from BM25, or from a list."""
    register("issue", IssueStyle)
    register("bm25", ranked_files.Bm25Style, config=ranked_files.Bm25Table)
    register("files", ranked_files.ListedStyle, config=ranked_files.ListedTable)
    register("oracle", oracle.OracleStyle, config=oracle.OracleTable)


@hookimpl
def register_backends(register: Register) -> None:
    """Transformers models, and recorded predictions."""

    def hf(table: HfTable) -> Backend:
        """Any causal model, from the Hub or a directory; builtin:tiny, builtin:small."""
        from swebench_trainer.hf import HfBackend

        return HfBackend(table)

    register("hf", hf, config=HfTable)
    register("replay", replay.ReplayBackend, config=replay.ReplayTable)


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
    register(
        "self-generated", strategies.SelfGenerated, config=strategies.SelfGeneratedTable
    )
    register("api-rejects", strategies.ApiRejects, config=strategies.ApiRejectsTable)
    register("tiered", strategies.Tiered, config=strategies.TieredTable)
    register("unpaired", strategies.Unpaired, config=strategies.UnpairedTable)


@hookimpl
def register_publishers(register: Register) -> None:
    """A directory, or the Hugging Face Hub."""
    register(
        "directory", publishers.DirectoryPublisher, config=publishers.DirectoryTable
    )
    register("hub", publishers.HubPublisher, config=publishers.HubTable)
