"""One file per stage, and what each is given.

Stages meet only through the files of the run directory; none imports another.
A stage is a function `run(context) -> figures` which may be killed at any moment
and is then called again with what it has written so far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from swebench_trainer.contents.library import Library
from swebench_trainer.contracts import (
    Backend,
    GoldRun,
    ItemProgress,
    TokenCounter,
    Tree,
)
from swebench_trainer.errors import DataError, StageError
from swebench_trainer.grading.docker.archives import DockerArchives
from swebench_trainer.grading.trust.gold import gold_run
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.plugins.registry import Registry
from swebench_trainer.recipe.models import Recipe
from swebench_trainer.store.jsonl import each_row, read_json, read_rows
from swebench_trainer.store.rundir import RunDir, StageDir
from swebench_trainer.types import Instance, Verdict, from_row

T = TypeVar("T")
GOLD = "gold"
"""`Candidate.model` of the gold runs of `admit`."""
StageSummary = dict[str, str | int | float]
"""What a stage says of itself in one line, by name."""


@dataclass(frozen=True)
class StageContext:
    """What a stage is given.

    Attributes:
        dir: The stage's own directory, the only one that it writes to.
        done: Tells observers of one item: its name, items done, items in all,
            a word about it.
    """

    recipe: Recipe
    run: RunDir
    plugins: Plugins
    dir: StageDir
    done: ItemProgress

    def read(self, stage: str, file: str, kind: type[T]) -> list[T]:
        """The rows that another stage has written, as values of `kind`."""
        rows = read_rows(self.run.stage(stage).file(file))
        return [from_row(kind, row) for row in rows]

    def instances(self) -> list[Instance]:
        """Every prepared instance, of both splits.

        Raises:
            DataError: The files of a repository are no longer where they were.
        """
        instances = self.read("prepare", "instances.jsonl", Instance)
        for instance in instances:
            if instance.snapshot and not Path(instance.snapshot).is_dir():
                raise DataError(
                    f"The files of {instance.instance_id} are gone: {instance.snapshot}.",
                    hint="Put the data back there, or start anew with --redo prepare.",
                )
        return instances

    @contextmanager
    def files(self) -> Iterator[Callable[[Instance], Tree | None]]:
        """Gives a function that opens the repository's files as `prepare` has found them.

        It gives `None` for an instance whose files nothing needed, and raises
        `DataError` where they cannot be had any more.
        """
        library = Library(self.recipe.contents, DockerArchives())

        def tree(instance: Instance) -> Tree | None:
            if not instance.contents:
                return None
            try:
                return library.open(instance)[1]
            except ValueError as error:
                raise DataError(
                    f"{instance.instance_id}: {error}.",
                    hint="Bring them back, or look elsewhere with [contents] and "
                    "--redo prepare.",
                ) from error

        with closing(library):
            yield tree

    def prompts(self) -> dict[str, str]:
        """The prompt of each prepared instance."""
        rows = read_rows(self.run.stage("prepare").file("prompts.jsonl"))
        return {row["instance_id"]: row["prompt"] for row in rows}

    def prompt_context(self, instances: Iterable[Instance]) -> str:
        """What the prompts of these instances show; see `PromptStyle`.

        Raises:
            StageError: They show different things, so their rates are no one rate.
        """
        rows = read_rows(self.run.stage("prepare").file("prompts.jsonl"))
        wanted = {instance.instance_id for instance in instances}
        contexts = {
            row.get("context", self.recipe.prompt.use)
            for row in rows
            if row["instance_id"] in wanted
        }
        if len(contexts) > 1:
            raise StageError(
                f"The prompts have different contexts: {', '.join(sorted(contexts))}.",
                hint="Prepare them with one prompt style: --redo prepare",
            )
        return str(contexts.pop()) if contexts else self.recipe.prompt.use

    def admitted(self) -> list[Instance]:
        """Instances whose labels can be trusted, or that nobody was asked to check."""
        refused = {row["instance_id"] for row in self.refusals()}
        return [
            i for i in self.instances() if i.gradable and i.instance_id not in refused
        ]

    def refusals(self) -> list[dict[str, Any]]:
        """The rows of the instances that were not admitted."""
        if self.recipe.grade is None or not self.recipe.grade.admission_runs:
            return []
        path = self.run.stage("admit").file("admission.jsonl")
        return [row for row in read_rows(path) if not row["admitted"]]

    def gold_runs(self) -> Callable[[Instance], GoldRun | None]:
        """Looks up the gold run of an instance, which `admit` has made."""
        if self.recipe.grade is None or not self.recipe.grade.admission_runs:
            return lambda _: None
        return gold_runs(self.run)

    def weights(self, stage: str) -> Path | None:
        """What a training stage has made, or `None` if it is not in the recipe."""
        if getattr(self.recipe, stage) is None:
            return None
        for name in ("adapter", "model"):
            path = self.run.stage(stage).file(name)
            if path.is_dir():
                return path
        return None


def gold_runs(run: RunDir) -> Callable[[Instance], GoldRun | None]:
    """Looks up the first gold run of an instance in the logs of `admit`."""
    stage = run.stage("admit")
    verdicts = (
        from_row(Verdict, row) for row in each_row(stage.file("verdicts.jsonl"))
    )
    logs = {
        verdict.instance_id: stage.file(verdict.log)
        for verdict in verdicts
        if verdict.model == GOLD and verdict.sample == 0 and verdict.log
    }

    def gold_of(instance: Instance) -> GoldRun | None:
        folder = logs.get(instance.instance_id)
        return gold_run(instance, folder) if folder else None

    return gold_of


def token_counter(recipe: Recipe, registry: Registry) -> TokenCounter | None:
    """The backend that counts a recipe's tokens; `None` if it has none that can."""
    if recipe.model is None:
        return None
    backend = registry.create("backend", recipe.model)
    return backend if hasattr(backend, "open_counter") else None


def keep_responses(backend: Backend, folder: Path) -> None:
    """Tells a backend where its answers are kept, if it keeps them."""
    if hasattr(backend, "keep_responses"):
        backend.keep_responses(folder)


def costs(backends: Sequence[Backend]) -> StageSummary:
    """What the answers of these writers have cost, where they say."""
    figures: StageSummary = {}
    for backend in backends:
        if hasattr(backend, "figures"):
            name = f"{backend.name} " if len(backends) > 1 else ""
            figures |= {f"{name}{key}": v for key, v in backend.figures().items()}
    return figures


def loss_figures(context: StageContext) -> StageSummary:
    """The last training loss, and the held-out loss of the weights that were kept."""
    rows = read_rows(context.dir.file("metrics.jsonl"))
    losses = [row["loss"] for row in rows if "loss" in row]
    figures: StageSummary = {"loss": f"{losses[-1]:.4f}" if losses else "?"}
    audit = read_json(context.dir.file("audit.json")) or {}
    if kept := audit.get("validation"):
        best = f"{kept['kept_loss']:.4f} at step {kept['kept_step']}, which was kept"
        figures["held-out loss"] = best
    return figures
