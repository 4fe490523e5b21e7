"""Our own plugins: registered through the same hooks as anybody's.

This is also where implementations are put together. A factory imports its
implementation when it is called, so that listing plugins and checking a recipe
load neither torch nor docker.
"""

from __future__ import annotations

from typing import Any

from swebench_trainer.data.generated.source import GeneratedTable
from swebench_trainer.data.pro import ProTable
from swebench_trainer.data.rows import RowsTable
from swebench_trainer.data.task_repo import TaskRepoTable
from swebench_trainer.grading.docker.grader import DockerTable
from swebench_trainer.grading.namespace.grader import NamespaceTable
from swebench_trainer.hookspecs import Register, hookimpl
from swebench_trainer.preferences.api_rejects import ApiRejectsTable
from swebench_trainer.preferences.self_generated import SelfGeneratedTable
from swebench_trainer.preferences.tiered import TieredTable
from swebench_trainer.preferences.unpaired import UnpairedTable
from swebench_trainer.prompts.oracle import OracleTable
from swebench_trainer.prompts.ranked_files import Bm25Table, ListedTable
from swebench_trainer.reporting.publishers import DirectoryTable, HubTable
from swebench_trainer.sampling.replay import ReplayTable
from swebench_trainer.training.model import HfTable


@hookimpl
def register_sources(register: Register) -> None:
    """Rows of the SWE-bench family, SWE-bench Pro, task repos, and generated tasks."""

    def rows(table: RowsTable) -> Any:
        from swebench_trainer.data.rows import RowsSource

        return RowsSource(table)

    def pro(table: ProTable) -> Any:
        from swebench_trainer.data.pro import ProSource

        return ProSource(table)

    def task_repo(table: TaskRepoTable) -> Any:
        from swebench_trainer.data.task_repo import TaskRepoSource

        return TaskRepoSource(table)

    def generated(table: GeneratedTable) -> Any:
        from swebench_trainer.data.generated.source import GeneratedSource

        return GeneratedSource(table)

    register(
        "rows",
        rows,
        config=RowsTable,
        summary="rows of the SWE-bench family: a file or a dataset of the Hub",
    )
    register(
        "swebench-pro",
        pro,
        config=ProTable,
        summary="rows of SWE-bench Pro, with the scripts of its evaluation repository",
    )
    register(
        "task-repo",
        task_repo,
        config=TaskRepoTable,
        summary="a swebench 5 task repo: one directory per instance",
    )
    register(
        "generated",
        generated,
        config=GeneratedTable,
        summary="small repair tasks drawn from a seed, to train a model from scratch",
    )


@hookimpl
def register_prompt_styles(register: Register) -> None:
    """The issue alone, or with files: those of its fix, found, or listed by others."""

    def issue(table: Any) -> Any:
        from swebench_trainer.prompts.styles import IssueStyle

        return IssueStyle(table)

    def oracle(table: OracleTable) -> Any:
        from swebench_trainer.prompts.oracle import OracleStyle

        return OracleStyle(table)

    def bm25(table: Bm25Table) -> Any:
        from swebench_trainer.prompts.ranked_files import Bm25Style

        return Bm25Style(table)

    def files(table: ListedTable) -> Any:
        from swebench_trainer.prompts.ranked_files import ListedStyle

        return ListedStyle(table)

    register("issue", issue, summary="the issue text alone")
    register(
        "bm25",
        bm25,
        config=Bm25Table,
        summary="the issue and the source files that BM25 finds for it",
    )
    register(
        "files",
        files,
        config=ListedTable,
        summary="the issue and the files that another system lists for it",
    )
    register(
        "oracle",
        oracle,
        config=OracleTable,
        summary="the issue and the files of the gold patch; not leaderboard-valid",
    )


@hookimpl
def register_backends(register: Register) -> None:
    """Transformers models, and recorded predictions."""

    def hf(table: HfTable) -> Any:
        from swebench_trainer.sampling.transformers import TransformersSampler
        from swebench_trainer.training.backend import HfBackend

        return HfBackend(table, make_sampler=TransformersSampler)

    def replay(table: ReplayTable) -> Any:
        from swebench_trainer.sampling.replay import ReplayBackend

        return ReplayBackend(table)

    register(
        "hf",
        hf,
        config=HfTable,
        summary="any causal model of the Hub or a directory; builtin:tiny, builtin:small",
    )
    register(
        "replay",
        replay,
        config=ReplayTable,
        summary="recorded predictions of another system; samples only",
    )


@hookimpl
def register_graders(register: Register) -> None:
    """The official eval script in Docker, in a namespace, or by the stock harness."""

    def docker(table: DockerTable) -> Any:
        from swebench_trainer.grading.cache import open_memory
        from swebench_trainer.grading.docker.grader import DockerGrader

        return DockerGrader(table, open_memory(table))

    def stock(table: Any) -> Any:
        from swebench_trainer.grading.stock import StockGrader

        return StockGrader(table)

    def namespace(table: NamespaceTable) -> Any:
        from swebench_trainer.grading.cache import open_memory
        from swebench_trainer.grading.namespace.grader import NamespaceGrader

        return NamespaceGrader(table, open_memory(table))

    register(
        "docker",
        docker,
        config=DockerTable,
        summary="a fresh container per distinct patch",
    )
    register("stock", stock, summary="the unmodified harness, for comparison")
    register(
        "namespace",
        namespace,
        config=NamespaceTable,
        summary="Linux namespaces, on task files or on images exported once",
    )


@hookimpl
def register_pair_strategies(register: Register) -> None:
    """Passes against failures, gold against failures, or each by itself."""

    def self_generated(table: SelfGeneratedTable) -> Any:
        from swebench_trainer.preferences.self_generated import SelfGenerated

        return SelfGenerated(table)

    def api_rejects(table: ApiRejectsTable) -> Any:
        from swebench_trainer.preferences.api_rejects import ApiRejects

        return ApiRejects(table)

    def tiered(table: TieredTable) -> Any:
        from swebench_trainer.preferences.tiered import Tiered

        return Tiered(table)

    def unpaired(table: UnpairedTable) -> Any:
        from swebench_trainer.preferences.unpaired import Unpaired

        return Unpaired(table)

    register(
        "self-generated",
        self_generated,
        config=SelfGeneratedTable,
        summary="passing candidates chosen, failing ones rejected",
    )
    register(
        "api-rejects",
        api_rejects,
        config=ApiRejectsTable,
        summary="gold chosen, failing candidates of any writer rejected",
    )
    register(
        "tiered",
        tiered,
        config=TieredTable,
        summary="candidates of higher reward chosen, those of the next lower rejected",
    )
    register(
        "unpaired",
        unpaired,
        config=UnpairedTable,
        summary="passing candidates good, failing ones bad, each by itself (kto)",
    )


@hookimpl
def register_publishers(register: Register) -> None:
    """A directory, or the Hugging Face Hub."""

    def directory(table: DirectoryTable) -> Any:
        from swebench_trainer.reporting.publishers import DirectoryPublisher

        return DirectoryPublisher(table)

    def hub(table: HubTable) -> Any:
        from swebench_trainer.reporting.publishers import HubPublisher

        return HubPublisher(table)

    register(
        "directory",
        directory,
        config=DirectoryTable,
        summary="a directory on this machine",
    )
    register("hub", hub, config=HubTable, summary="a model repository of the Hub")
