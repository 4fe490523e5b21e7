"""The order of the stages, what each depends on, and how a run is resumed.

Every stage has a fingerprint: the settings that decide its result, the
fingerprints of the stages that it reads, and the versions of the plugins that
it uses. A stage whose manifest has the same fingerprint is done; one that was
begun with the same fingerprint goes on; any other difference is refused, with
the difference and the ways out.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from swebench_trainer.errors import RecipeError, StageError
from swebench_trainer.events import (
    ItemDone,
    RecipeLoaded,
    RunFinished,
    RunStarted,
    StageFailed,
    StageFinished,
    StageStarted,
)
from swebench_trainer.hookspecs import hookimpl
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.plugins.masks import masked
from swebench_trainer.plugins.registry import KIND_OF_TABLE
from swebench_trainer.recipe.load import Draft
from swebench_trainer.recipe.models import (
    ContextTable,
    PluginTable,
    Recipe,
    TrainTable,
    resolved_settings,
    semantic_settings,
)
from swebench_trainer.stages import (
    admit,
    dpo,
    evaluate,
    generate,
    grade,
    pairs,
    prepare,
    publish,
    sft,
)
from swebench_trainer.stages.context import StageContext, StageSummary, token_counter
from swebench_trainer.store.digest import digest
from swebench_trainer.store.jsonl import (
    RowWriter,
    disk_errors,
    read_json,
    write_bytes,
    write_json,
)
from swebench_trainer.store.locks import owned
from swebench_trainer.store.rundir import RunDir

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    Attributes:
        run: Does the stage; may be called again after a kill.
        wanted: Whether a recipe has it.
        tables: Tables of the recipe that decide its result.
        reads: Stages whose files it reads.
    """

    name: str
    run: Callable[[StageContext], StageSummary]
    wanted: Callable[[Recipe], bool]
    tables: tuple[str, ...]
    reads: tuple[str, ...] = ()


def _has(table: str) -> Callable[[Recipe], bool]:
    return lambda recipe: getattr(recipe, table) is not None


def _admits(recipe: Recipe) -> bool:
    return recipe.grade is not None and recipe.grade.admission_runs > 0


STAGES = (
    Stage("prepare", prepare.run, _has("data"), ("data", "contents", "prompt")),
    Stage("admit", admit.run, _admits, ("grade",), ("prepare",)),
    Stage("sft", sft.run, _has("sft"), ("model", "sft"), ("prepare", "admit")),
    Stage(
        "generate",
        generate.run,
        _has("generate"),
        ("model", "generate"),
        ("prepare", "admit", "sft"),
    ),
    Stage("grade", grade.run, _has("grade"), ("grade",), ("generate", "admit")),
    Stage(
        "pairs",
        pairs.run,
        _has("pairs"),
        ("pairs",),
        ("prepare", "admit", "generate", "grade"),
    ),
    Stage("dpo", dpo.run, _has("dpo"), ("model", "dpo"), ("pairs", "sft")),
    Stage(
        "evaluate",
        evaluate.run,
        _has("evaluate"),
        ("model", "evaluate", "grade"),
        ("prepare", "admit", "sft", "dpo"),
    ),
    Stage(
        "publish",
        publish.run,
        _has("publish"),
        ("publish",),
        ("sft", "dpo", "evaluate"),
    ),
)
"""Every stage, in order."""


def stages_of(recipe: Recipe) -> list[Stage]:
    """The stages that a recipe has, in order."""
    wanted = [stage for stage in STAGES if stage.wanted(recipe)]
    ungraded = recipe.pairs is not None and not recipe.pairs.needs_grades
    if recipe.generate is None or ungraded:  # [grade] is there for [evaluate] alone
        wanted = [stage for stage in wanted if stage.name != "grade"]
    return wanted


def choose(
    stages: Sequence[Stage],
    *,
    first: str | None = None,
    last: str | None = None,
    only: str | None = None,
) -> list[Stage]:
    """The part of the stages that `--from`, `--until` and `--only` ask for.

    Raises:
        RecipeError: A name is not among the stages, or nothing is left.
    """
    names = [stage.name for stage in stages]
    for name in filter(None, (first, last, only)):
        if name not in names:
            raise RecipeError(
                f"This recipe has no stage {name!r}.",
                hint=f"It has: {', '.join(names)}.",
            )
    start = names.index(only or first or names[0])
    end = names.index(only or last or names[-1])
    if end < start:
        raise RecipeError(f"Nothing lies between {first!r} and {last!r}.")
    return list(stages[start : end + 1])


def dependants(names: Sequence[str], stages: Sequence[Stage]) -> list[str]:
    """Those of the stages, in order, that are named or read from one that is."""
    found: list[str] = []
    for stage in stages:
        if stage.name in names or any(name in found for name in stage.reads):
            found.append(stage.name)
    return found


def fingerprint(
    settings: Mapping[str, Any], plugins: Mapping[str, str], inputs: Mapping[str, str]
) -> dict[str, Any]:
    """What decides a stage's result, with its digest; see `StageDir.begin`."""
    parts = {"settings": settings, "plugins": plugins, "inputs": inputs}
    return {**parts, "digest": digest(parts)}


class Pipeline:
    """One run: a recipe in a run directory."""

    def __init__(
        self, recipe: Recipe, draft: Draft, runs_dir: Path, plugins: Plugins
    ) -> None:
        self.recipe = recipe
        self.run_dir = RunDir(runs_dir / recipe.name)
        self._draft = draft
        self._plugins = plugins
        self._settings = resolved_settings(recipe)

    def run(self, chosen: Sequence[Stage], redo: Sequence[str] = ()) -> None:
        """Does the chosen stages that are not done yet.

        Args:
            chosen: Stages of this recipe, in order.
            redo: Names of stages to do anew, with all that depends on them;
                their files are moved aside, not deleted.

        Raises:
            StageError: The run directory is in use, settings have changed since
                it was made, or a stage failed.
        """
        start = time.monotonic()
        with owned(self.run_dir.lock):
            fingerprints = self._fingerprints()
            anew = self._with_dependants(redo)
            self._refuse_changes(fingerprints, anew)
            self._require_earlier(chosen[0], anew)
            for name in anew:
                if self.run_dir.stage(name).path.exists():
                    self.run_dir.set_aside(self.run_dir.stage(name))
            self._check_plugins(chosen)
            attempt = self._record_attempt()
            with self._logging(attempt), self._event_log():
                self._plugins.announce_recipe(
                    RecipeLoaded(self._draft.path, self._settings)
                )
                names = tuple(stage.name for stage in chosen)
                self._plugins.notify(
                    "run_started", RunStarted(self.run_dir.path, names, attempt)
                )
                for stage in chosen:
                    self._do(stage, fingerprints[stage.name])
                self._plugins.notify(
                    "run_finished",
                    RunFinished(self.run_dir.path, time.monotonic() - start),
                )

    def _do(self, stage: Stage, fingerprint: dict[str, Any]) -> None:
        """Runs a stage, or says that it is done."""
        folder = self.run_dir.stage(stage.name)
        if manifest := folder.finished():
            self._plugins.notify(
                "stage_finished",
                StageFinished(stage.name, 0.0, manifest["figures"], skipped=True),
            )
            return
        resumed = folder.begun() is not None
        folder.begin(fingerprint)
        self._plugins.notify("stage_started", StageStarted(stage.name, resumed))
        start = time.monotonic()
        context = StageContext(
            recipe=self.recipe,
            run=self.run_dir,
            plugins=self._plugins,
            dir=folder,
            done=partial(self._item_done, stage.name),
        )
        try:
            with disk_errors(folder.path):  # of backends and plugins too
                figures = stage.run(context)
            folder.finish({**fingerprint, "figures": figures})
        except BaseException as error:
            folder.forget()
            text = masked(str(error)) or type(error).__name__
            stopped = isinstance(error, KeyboardInterrupt)
            if not stopped:
                log.error("stage %s failed", stage.name, exc_info=error)
            self._plugins.notify("stage_failed", StageFailed(stage.name, text, stopped))
            raise
        seconds = time.monotonic() - start
        self._plugins.notify(
            "stage_finished", StageFinished(stage.name, seconds, figures)
        )

    def _item_done(
        self, stage: str, item: str, done: int, total: int, detail: str
    ) -> None:
        self._plugins.notify("item_done", ItemDone(stage, item, done, total, detail))

    def _fingerprints(self) -> dict[str, dict[str, Any]]:
        """The fingerprint of each stage of the recipe, by name."""
        found: dict[str, dict[str, Any]] = {}
        for stage in stages_of(self.recipe):
            found[stage.name] = fingerprint(
                self._stage_settings(stage),
                self._origins(stage),
                {name: found[name]["digest"] for name in stage.reads if name in found},
            )
        return found

    def _stage_settings(self, stage: Stage) -> dict[str, Any]:
        settings: dict[str, Any] = {"seed": self.recipe.seed}
        for name in stage.tables:
            table = getattr(self.recipe, name)
            if isinstance(table, BaseModel):
                for key, value in semantic_settings(table, stage.name).items():
                    settings[f"{name}.{key}"] = value
        if stage.name in ("sft", "dpo"):
            settings["prompt.max_tokens"] = self.recipe.prompt.max_tokens
        if stage.name == "prepare":
            source = self._plugins.registry.create("source", self.recipe.data)
            settings["data content"] = source.digest()
            if isinstance(self.recipe.prompt, ContextTable):
                counter = token_counter(self.recipe, self._plugins.registry)
                settings["tokens"] = counter.tokenizer if counter else "estimated"
        return settings

    def _origins(self, stage: Stage) -> dict[str, str]:
        origins = {}
        for name, table in self._plugin_tables(stage):
            entry = self._plugins.registry.get(KIND_OF_TABLE[name], table.use)
            origins[f"{name}.{table.use}"] = entry.origin
            if name == "grade":
                origins["swebench"] = importlib.metadata.version("swebench")
        return origins

    def _plugin_tables(self, stage: Stage) -> Iterator[tuple[str, PluginTable]]:
        """The tables of a stage that name a plugin, with the names of their kinds."""
        for name in stage.tables:
            table = getattr(self.recipe, name)
            if isinstance(table, PluginTable):
                yield name, table
        if stage.name == "generate" and self.recipe.generate:
            for writer in self.recipe.generate.writers:
                yield "model", writer

    def _check_plugins(self, chosen: Sequence[Stage]) -> None:
        """Lets each plugin that is still to work say what it lacks, before anything runs."""
        checked: list[PluginTable] = []
        for stage in chosen:
            if self.run_dir.stage(stage.name).finished():
                continue
            self._check_training(stage)
            for name, table in self._plugin_tables(stage):
                if name not in ("model", "grade", "publish") or table in checked:
                    continue
                checked.append(table)
                plugin = self._plugins.registry.create(KIND_OF_TABLE[name], table)
                if name == "grade":
                    plugin.check([])
                    plugin.close()
                else:
                    plugin.check()

    def _check_training(self, stage: Stage) -> None:
        settings = getattr(self.recipe, stage.name, None)
        if isinstance(settings, TrainTable) and self.recipe.model is not None:
            backend = self._plugins.registry.create("backend", self.recipe.model)
            if hasattr(backend, "check_training"):
                backend.check_training(settings)

    def _with_dependants(self, names: Sequence[str]) -> list[str]:
        """The named stages of the recipe and all that read from them."""
        stages = stages_of(self.recipe)
        choose(stages)
        for name in names:
            choose(stages, only=name)
        return dependants(names, stages)

    def _refuse_changes(
        self, fingerprints: Mapping[str, dict[str, Any]], anew: Sequence[str]
    ) -> None:
        """Raises if a stage was begun with other settings than it has now."""
        for name, new in fingerprints.items():
            old = self.run_dir.stage(name).begun()
            if name in anew or old is None or old["digest"] == new["digest"]:
                continue
            raise StageError(
                f"{self.run_dir.path}: stage {name} was made with other settings.\n"
                + "\n".join(f"  {line}" for line in _difference(old, new)),
                hint=(
                    f"Do it anew with --redo {name} (the old files are kept aside), "
                    "give the run another name with --name, or take the change back."
                ),
            )

    def _require_earlier(self, first: Stage, anew: Sequence[str]) -> None:
        for stage in stages_of(self.recipe):
            if stage.name == first.name:
                return
            if stage.name in anew or not self.run_dir.stage(stage.name).finished():
                raise StageError(
                    f"Stage {first.name} needs {stage.name}, which is not done.",
                    hint=f"Run without --from and --only, or --until {stage.name} first.",
                )

    def _record_attempt(self) -> int:
        """Writes recipe, settings and facts; returns the number of this attempt."""
        facts = read_json(self.run_dir.facts) or {"attempts": []}
        attempt = len(facts["attempts"]) + 1
        facts["attempts"].append(
            {
                "number": attempt,
                "started": _now(),
                "host": socket.gethostname(),
                "platform": platform.platform(),
                "python": platform.python_version(),
                "cores": os.cpu_count(),
                "device": _device(),
                "versions": _versions(),
            }
        )
        write_json(self.run_dir.facts, facts)
        write_bytes(self.run_dir.recipe, self._draft.path.read_bytes())
        write_json(self.run_dir.resolved, self._settings)
        return attempt

    @contextmanager
    def _logging(self, attempt: int) -> Iterator[None]:
        """Sends log records to the attempt's log file."""
        path = self.run_dir.attempt_log(attempt)
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _AttemptLog(path, encoding="utf-8")
        handler.setFormatter(_Masking("%(asctime)s %(name)s %(message)s"))
        root = logging.getLogger()
        root.addHandler(handler)
        try:
            yield
        finally:
            root.removeHandler(handler)
            with suppress(OSError):  # a full disk, of which the stage has told
                handler.close()

    @contextmanager
    def _event_log(self) -> Iterator[None]:
        """Writes every event to `events.jsonl`."""
        with RowWriter(self.run_dir.events) as rows:
            observer = _EventLog(rows)
            self._plugins.manager.register(observer, "event log")
            try:
                yield
            finally:
                self._plugins.manager.unregister(observer)


class _AttemptLog(logging.FileHandler):
    """A log file that is silent where the disk is full: the run's error says so."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Loses the record."""


class _Masking(logging.Formatter):
    """Keeps keys out of the log, whoever speaks of them."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text, its traceback too."""
        return masked(super().format(record))


class _EventLog:
    """Writes the events of the stages as rows."""

    def __init__(self, rows: RowWriter) -> None:
        self._rows = rows

    def _write(self, event: Any) -> None:
        values = {
            key: str(value) if isinstance(value, Path) else value
            for key, value in asdict(event).items()
        }
        self._rows.write({"time": _now(), "event": type(event).__name__, **values})

    @hookimpl
    def run_started(self, event: RunStarted) -> None:
        self._write(event)

    @hookimpl
    def stage_started(self, event: StageStarted) -> None:
        self._write(event)

    @hookimpl
    def item_done(self, event: ItemDone) -> None:
        self._write(event)

    @hookimpl
    def stage_finished(self, event: StageFinished) -> None:
        self._write(event)

    @hookimpl
    def stage_failed(self, event: StageFailed) -> None:
        self._write(event)

    @hookimpl
    def run_finished(self, event: RunFinished) -> None:
        self._write(event)


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """What has changed between two fingerprints, a line each."""
    for part in ("settings", "plugins", "inputs"):
        keys = sorted(old[part].keys() | new[part].keys())
        for key in keys:
            before, after = old[part].get(key), new[part].get(key)
            if before == after:
                continue
            if part == "inputs":
                yield f"its input, stage {key}, is another one"
            else:
                yield f"{key}: {before!r} → {after!r}"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _versions() -> dict[str, str]:
    names = (
        *("swebench-trainer", "swebench", "torch", "transformers", "trl", "peft"),
        *("bitsandbytes", "datasets", "docker", "pluggy"),
    )
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _device() -> str:
    """The GPU's name if torch is loaded and sees one; looked up without loading it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return "GPU" if shutil.which("nvidia-smi") else "CPU"
