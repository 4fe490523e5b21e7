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
from swebench_trainer.preferences.api_rejects import ApiRejects, ApiRejectsTable
from swebench_trainer.preferences.self_generated import (
    SelfGenerated,
    SelfGeneratedTable,
)
from swebench_trainer.preferences.tiered import Tiered, TieredTable
from swebench_trainer.preferences.unpaired import Unpaired, UnpairedTable
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
    register(
        "rows",
        RowsSource,
        config=RowsTable,
        summary="rows of the SWE-bench family, from a file or a Hub dataset",
    )
    register(
        "swebench-pro",
        ProSource,
        config=ProTable,
        summary="rows of SWE-bench Pro, with the scripts of its evaluation repository",
    )
    register(
        "task-repo",
        TaskRepoSource,
        config=TaskRepoTable,
        summary="a swebench 5 task repo: one directory per instance",
    )
    register(
        "generated",
        GeneratedSource,
        config=GeneratedTable,
        summary="small repair tasks drawn from a seed, to train a model from scratch",
    )


@hookimpl
def register_prompt_styles(register: Register) -> None:
    """The issue only, or with files: from the gold patch, from BM25, or from a list."""
    register("issue", IssueStyle, summary="only the text of the issue")
    register(
        "bm25",
        Bm25Style,
        config=Bm25Table,
        summary="the issue and the source files that BM25 ranks highest",
    )
    register(
        "files",
        ListedStyle,
        config=ListedTable,
        summary="the issue and the files that another system lists for it",
    )
    register(
        "oracle",
        OracleStyle,
        config=OracleTable,
        summary="the issue and the files of the gold patch; not leaderboard-valid",
    )


@hookimpl
def register_backends(register: Register) -> None:
    """Transformers models, and recorded predictions."""

    def hf(table: HfTable) -> Backend:
        from swebench_trainer.hf import HfBackend

        return HfBackend(table)

    register(
        "hf",
        hf,
        config=HfTable,
        summary="any causal model, from the Hub or a directory; builtin:tiny, "
        "builtin:small",
    )
    register(
        "replay",
        ReplayBackend,
        config=ReplayTable,
        summary="recorded predictions of another system; samples only",
    )


@hookimpl
def register_graders(register: Register) -> None:
    """The official eval script in Docker, in a namespace, or through the stock harness."""

    def docker(table: DockerTable) -> Grader:
        return DockerGrader(table, open_run_cache(table))

    def namespace(table: NamespaceTable) -> Grader:
        return NamespaceGrader(table, open_run_cache(table))

    register(
        "docker",
        docker,
        config=DockerTable,
        summary="a fresh container per distinct patch",
    )
    register("stock", StockGrader, summary="the unmodified harness, for comparison")
    register(
        "namespace",
        namespace,
        config=NamespaceTable,
        summary="Linux namespaces, on task files or on images exported once",
    )


@hookimpl
def register_pair_strategies(register: Register) -> None:
    """Passes against failures, gold against failures, or single answers."""
    register(
        "self-generated",
        SelfGenerated,
        config=SelfGeneratedTable,
        summary="passing candidates chosen, failing ones rejected",
    )
    register(
        "api-rejects",
        ApiRejects,
        config=ApiRejectsTable,
        summary="gold chosen, failing candidates of any writer rejected",
    )
    register(
        "tiered",
        Tiered,
        config=TieredTable,
        summary="candidates with a higher reward chosen, with the next lower one rejected",
    )
    register(
        "unpaired",
        Unpaired,
        config=UnpairedTable,
        summary="passing candidates good, failing ones bad, without pairing them (kto)",
    )


@hookimpl
def register_publishers(register: Register) -> None:
    """A directory, or the Hugging Face Hub."""
    register(
        "directory",
        DirectoryPublisher,
        config=DirectoryTable,
        summary="a directory on this machine",
    )
    register(
        "hub",
        HubPublisher,
        config=HubTable,
        summary="a model repository on the Hub",
    )
