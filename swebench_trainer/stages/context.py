"""What a stage is, and its access to the recipe, the plugins and the run directory.

Stages meet only through files of the run directory; none imports another. A stage is
a function `run(context) -> summary`. It may be killed at any moment, and is then
called again with the files it has written so far.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from swebench_trainer.answers.candidates import to_candidate
from swebench_trainer.contents.image import Archives
from swebench_trainer.contents.library import Library
from swebench_trainer.contracts import (
    Backend,
    GoldRun,
    Grader,
    ItemProgress,
    Sample,
    Sampler,
    SampleRequest,
    TokenCounter,
    Tree,
)
from swebench_trainer.errors import DataError, StageError
from swebench_trainer.grading.counter.runs import COUNTER, CounterRuns, GradingContext
from swebench_trainer.grading.counter.secret import ranking
from swebench_trainer.grading.ledger import Ledger, require_decided
from swebench_trainer.grading.trust.log_flags import gold_run
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.plugins.registry import Registry
from swebench_trainer.recipe.models import TABLES, GradeTable, ModelTable, Recipe, Table
from swebench_trainer.sampling.collect import collect
from swebench_trainer.store.jsonl import each_value, read_json, read_rows
from swebench_trainer.store.rundir import RunDir, StageDir
from swebench_trainer.types import Candidate, Instance, Verdict

T = TypeVar("T")
TableT = TypeVar("TableT", bound=Table)
GOLD = "gold"
"""`Candidate.model` of the gold runs of `admit`."""
StageSummary = dict[str, str | int | float]
"""The figures of a stage's closing line, by label; for people only."""
_KEYS: dict[type[Any], Callable[[Any], Hashable]] = {
    Instance: lambda value: value.instance_id,
    Candidate: lambda value: (value.instance_id, value.sample),
    Verdict: lambda value: (value.model, value.instance_id, value.sample),
}
"""What no two rows of a file have in common."""
Check = Callable[[Recipe, Registry], None]
"""Raises a `TrainerError` if a stage could not run on this machine."""


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    Attributes:
        run: Runs the stage; called again after a kill.
        is_wanted: Whether a recipe includes the stage.
        tables: Recipe tables that decide its result.
        reads: Stages whose files it reads; `StageContext` refuses any other.
        extra_settings: Further settings that decide its result, for the fingerprint.
        checks: Preflight checks; each runs once per call, before any stage starts.
    """

    name: str
    run: Callable[[StageContext], StageSummary]
    is_wanted: Callable[[Recipe], bool]
    tables: tuple[str, ...]
    reads: tuple[str, ...] = ()
    extra_settings: Callable[[Recipe, Registry], Mapping[str, Any]] = lambda *_: {}
    checks: tuple[Check, ...] = ()


class UndeclaredReadError(Exception):
    """A stage opened the files of a stage that its `Stage.reads` does not list."""


@dataclass(frozen=True)
class StageContext:
    """A stage's access to everything outside its own module.

    Attributes:
        run_dir: The run directory. Stages use `input`, which checks what they read.
        available: Names of the recipe's stages. A run directory may still hold files
            of others, from before the recipe changed; they are not used.
        done: Called after each item: its name, items done, total, a short detail.
        open_archives: Opens the Docker images that hold files of repositories.
    """

    stage: Stage
    recipe: Recipe
    run_dir: RunDir
    plugins: Plugins
    available: frozenset[str]
    done: ItemProgress
    open_archives: Callable[[], Archives]

    @property
    def dir(self) -> StageDir:
        """The stage's own directory, the only one that it writes to."""
        return self.run_dir.stage(self.stage.name)

    def input(self, stage: str) -> StageDir:
        """The directory of a stage that this one reads.

        Raises:
            UndeclaredReadError: `Stage.reads` does not list it.
        """
        if stage != self.stage.name and stage not in self.stage.reads:
            raise UndeclaredReadError(
                f"Stage {self.stage.name} reads {stage} without declaring it."
            )
        return self.run_dir.stage(stage)

    def table(self, kind: type[TableT]) -> TableT:
        """The recipe's table with this base model.

        Raises:
            LookupError: The recipe has no such table, although the stage needs it.
        """
        for name, base in TABLES.items():
            table = getattr(self.recipe, name)
            if base is kind and isinstance(table, kind):
                return table
        raise LookupError(f"Stage {self.stage.name} needs a {kind.__name__}.")

    def summary(self, stage: str, file: str = "summary.json") -> Any:
        """A JSON file of another stage, or `None` if the recipe has no such stage."""
        path = self.input(stage).file(file)
        return read_json(path) if stage in self.available else None

    def read(self, stage: str, file: str, kind: type[T]) -> list[T]:
        """The rows of another stage's file, as values of `kind`."""
        return [*each_value(self.input(stage).file(file), kind, _KEYS.get(kind))]

    def instances(self) -> list[Instance]:
        """Every prepared instance, of both splits.

        Raises:
            DataError: The files of a repository have moved.
        """
        instances = self.read("prepare", "instances.jsonl", Instance)
        for instance in instances:
            if instance.snapshot and not Path(instance.snapshot).is_dir():
                raise DataError(
                    f"The files of {instance.instance_id} are gone: {instance.snapshot}.",
                    hint="Put the data back there, or prepare it again with "
                    "--redo prepare.",
                )
        return instances

    def library(self) -> Library:
        """Open the repositories' files, for the caller to close."""
        return Library(self.recipe.contents, self.open_archives())

    @contextmanager
    def files(self) -> Iterator[Callable[[Instance], Tree | None]]:
        """Yield a function that opens an instance's files where `prepare` found them.

        It returns `None` for an instance whose files nothing needed, and raises
        `DataError` where they are no longer available.
        """
        library = self.library()

        def tree(instance: Instance) -> Tree | None:
            if not instance.contents:
                return None
            try:
                return library.open(instance)[1]
            except ValueError as error:
                raise DataError(
                    f"{instance.instance_id}: {error}.",
                    hint="Restore them, or change [contents] and use --redo prepare.",
                ) from error

        with closing(library):
            yield tree

    def prompts(self) -> dict[str, str]:
        """The prompt of each prepared instance."""
        rows = read_rows(self.input("prepare").file("prompts.jsonl"))
        return {row["instance_id"]: row["prompt"] for row in rows}

    def prompt_context(self, instances: Iterable[Instance]) -> str:
        """What the prompts of these instances show; see `PromptStyle`.

        Raises:
            StageError: They show different things, so one rate would mix them.
        """
        rows = read_rows(self.input("prepare").file("prompts.jsonl"))
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
        """Gradable instances, except those that `admit` refused."""
        refused = {row["instance_id"] for row in self.refusals()}
        return [
            i for i in self.instances() if i.gradable and i.instance_id not in refused
        ]

    def refusals(self) -> list[dict[str, Any]]:
        """The rows of the instances that were not admitted."""
        if "admit" not in self.available:
            return []
        rows = read_rows(self.input("admit").file("admission.jsonl"))
        return [row for row in rows if not row["admitted"]]

    def backend(self) -> Backend:
        """The backend of the model under training."""
        return self.plugins.registry.create(self.table(ModelTable))

    def answers(
        self,
        open_sampler: Callable[[], Sampler],
        requests: Sequence[SampleRequest],
        instances: Sequence[Instance],
        part: str = "",
        model: str = "",
    ) -> list[Candidate]:
        """Sample the answers that `candidates.jsonl` lacks, and extract their patches.

        Args:
            open_sampler: Opens the sampler; only called if requests are left.
            requests: The requests.
            instances: The instances that they are about.
            part: Subdirectory for the file, also shown in the progress.
            model: Name of the writer, unless the sampler names one.
        """
        by_id = {i.instance_id: i for i in instances}
        with self.files() as tree:

            def candidate(sample: Sample) -> Candidate:
                instance = by_id[sample.instance_id]
                files = tree(instance)
                return to_candidate(self.recipe.prompt, sample, instance, files, model)

            path = self.dir.file(part, "candidates.jsonl")
            return collect(open_sampler, requests, candidate, path, self._done(part))

    @contextmanager
    def grader(self, instances: Sequence[Instance]) -> Iterator[Grader]:
        """Open the grader.

        Raises:
            PrerequisiteError: It cannot grade these instances on this machine.
        """
        grader = self.plugins.registry.create(self.table(GradeTable))
        with closing(grader):
            grader.check(instances)
            yield grader

    def grade(
        self,
        grader: Grader,
        instances: Sequence[Instance],
        candidates: Sequence[Candidate],
        part: str = "",
        repeat: int = 0,
    ) -> list[Verdict]:
        """Grade the candidates that have no verdict in `verdicts.jsonl` yet.

        Args:
            grader: An open grader.
            instances: The instances that the grader was opened for.
            candidates: Candidates of these instances.
            part: Subdirectory for verdicts and logs, also shown in the progress.
            repeat: Number of the run of each patch.

        Raises:
            StageError: Infrastructure failures left too many candidates ungraded.
        """
        table = self.table(GradeTable)
        ledger = Ledger(self.dir.file(part), instances, run_id=self.recipe.name)
        verdicts = ledger.grade(
            grader,
            candidates,
            self._done(part),
            once_per_patch=table.dedupe != "off",
            repeat=lambda _: repeat,
            gold=self.gold_runs(),
        )
        require_decided(verdicts, table.max_faults)
        return verdicts

    def counter_run(
        self,
        grader: Grader,
        instances: Sequence[Instance],
        candidates: Sequence[Candidate],
        verdicts: Sequence[Verdict],
    ) -> list[Verdict]:
        """Run passing patches on tests that must fail; see `CounterRuns.check`.

        Without `[grade] counter_runs`, the verdicts stay as they are.
        """
        table = self.table(GradeTable)
        if not table.counter_runs:
            return list(verdicts)
        shared = GradingContext(
            grader,
            instances,
            self.gold_runs(),
            self._done("counter-run"),
            table.max_faults,
            self.recipe.name,
        )
        runs = CounterRuns(self.dir.file(COUNTER), shared, ranking())
        return runs.check(candidates, verdicts)

    def _done(self, part: str) -> ItemProgress:
        """The progress of a part of the stage."""
        if not part:
            return self.done
        return lambda item, done, total, detail: self.done(
            f"{part} {item}", done, total, f"{part} {detail}"
        )

    def gold_runs(self) -> Callable[[Instance], GoldRun | None]:
        """Look up the gold run of an instance, made by `admit`."""
        if "admit" not in self.available:
            return lambda _: None
        return gold_runs(self.input("admit"))

    def weights(self, stage: str) -> Path | None:
        """The weights of a training stage, or `None` if the recipe has no such stage."""
        if stage not in self.available:
            return None
        for name in ("adapter", "model"):
            path = self.input(stage).file(name)
            if path.is_dir():
                return path
        return None


def gold_logs(admit: StageDir) -> dict[str, str]:
    """Log directory of the first gold run of each instance, relative to the stage's."""
    return {
        verdict.instance_id: verdict.log
        for verdict in each_value(admit.file("verdicts.jsonl"), Verdict)
        if verdict.model == GOLD and verdict.sample == 0 and verdict.log
    }


def gold_runs(admit: StageDir) -> Callable[[Instance], GoldRun | None]:
    """Look up the first gold run of an instance in the logs of `admit`."""
    logs = gold_logs(admit)

    def gold_of(instance: Instance) -> GoldRun | None:
        log = logs.get(instance.instance_id)
        return gold_run(instance, admit.file(log)) if log else None

    return gold_of


def token_counter(recipe: Recipe, registry: Registry) -> TokenCounter | None:
    """The backend that counts a recipe's tokens; `None` if it has none that can."""
    if recipe.model is None:
        return None
    backend = registry.create(recipe.model)
    return cast(TokenCounter, backend) if hasattr(backend, "open_counter") else None


def keep_responses(backend: Backend, folder: Path) -> None:
    """Set where a backend keeps its responses, if it keeps them."""
    if hasattr(backend, "keep_responses"):
        backend.keep_responses(folder)


def costs(backends: Sequence[Backend]) -> StageSummary:
    """The cost of the answers of these writers, as far as they report it."""
    summary: StageSummary = {}
    for backend in backends:
        if hasattr(backend, "figures"):
            name = f"{backend.name} " if len(backends) > 1 else ""
            summary |= {f"{name}{key}": v for key, v in backend.figures().items()}
    return summary
