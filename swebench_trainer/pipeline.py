"""Runs a recipe in a run directory, and resumes it.

Every stage has a fingerprint: the settings that decide its result, the fingerprints
of the stages that it reads, and the versions of the plugins that it uses. A stage
whose manifest has the same fingerprint is done. A stage that was started with the same
fingerprint is resumed. Any other difference is refused, with the difference and the
ways out.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from swebench_trainer import events
from swebench_trainer.contracts import ItemProgress
from swebench_trainer.errors import StageError
from swebench_trainer.plugins.manager import EventObserver, Plugins
from swebench_trainer.plugins.registry import KIND_OF_TABLE
from swebench_trainer.recipe.load import Draft
from swebench_trainer.recipe.models import (
    PluginTable,
    Recipe,
    resolved_settings,
    semantic_settings,
)
from swebench_trainer.secrets import without_secrets
from swebench_trainer.stages.context import Stage, StageSummary
from swebench_trainer.stages.graph import choose, dependents, open_context, stages_of
from swebench_trainer.stages.prepare import DATA_CONTENT
from swebench_trainer.store.digest import digest
from swebench_trainer.store.jsonl import (
    RowWriter,
    damaged,
    disk_errors,
    read_json,
    write_bytes,
    write_json,
)
from swebench_trainer.store.locks import owned
from swebench_trainer.store.rundir import FORMAT, RunDir

log = logging.getLogger(__name__)


def fingerprint(
    settings: Mapping[str, Any], plugins: Mapping[str, str], inputs: Mapping[str, str]
) -> dict[str, Any]:
    """Everything that decides a stage's result, with its digest; see `StageDir.begin`."""
    parts = {"settings": settings, "plugins": plugins, "inputs": inputs}
    return {**parts, "digest": digest(parts)}


def run_observed(
    plugins: Plugins,
    stage: str,
    run: Callable[[ItemProgress], StageSummary],
    *,
    resumed: bool,
) -> None:
    """Run a stage, with its events for observers."""

    def done(item: str, done: int, total: int, detail: str) -> None:
        plugins.notify(events.ItemDone(stage, item, done, total, detail))

    plugins.notify(events.StageStarted(stage, resumed))
    start = time.monotonic()
    try:
        summary = run(done)
    except BaseException as error:  # also Ctrl-C, which observers must hear of
        text = without_secrets(str(error)) or type(error).__name__
        stopped = isinstance(error, KeyboardInterrupt)
        plugins.notify(events.StageFailed(stage, text, stopped))
        raise
    plugins.notify(events.StageFinished(stage, time.monotonic() - start, summary))


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
        self._unchanged: set[str] = set()

    def run(self, chosen: Sequence[Stage], redo: Sequence[str] = ()) -> None:
        """Run the chosen stages that are not done yet.

        Args:
            chosen: Stages of this recipe, in order.
            redo: Names of stages to rerun, with everything downstream; their files
                are moved aside, not deleted.

        Raises:
            StageError: The run directory is in use or from an older version,
                settings have changed since it was made, or a stage failed.
        """
        start = time.monotonic()
        with owned(self.run_dir.lock):
            self._refuse_other_format()
            fingerprints = self._fingerprints()
            rerun = self._with_dependents(redo)
            self._refuse_changes(fingerprints, rerun)
            self._require_earlier(chosen[0], rerun)
            for name in rerun:
                if self.run_dir.stage(name).path.exists():
                    self.run_dir.set_aside(self.run_dir.stage(name))
            self._preflight(chosen)
            attempt = self._record_attempt()
            with self._logging(attempt), self._event_log():
                notify = self._plugins.notify
                notify(events.RecipeLoaded(self._draft.path, self._settings))
                names = tuple(stage.name for stage in chosen)
                notify(events.RunStarted(self.run_dir.path, names, attempt))
                for stage in chosen:
                    self._do(stage, fingerprints[stage.name])
                notify(events.RunFinished(self.run_dir.path, time.monotonic() - start))

    def _do(self, stage: Stage, fingerprint: dict[str, Any]) -> None:
        """Run a stage, or reports that it is done."""
        folder = self.run_dir.stage(stage.name)
        if manifest := folder.finished():
            figures = manifest["figures"]
            done = events.StageFinished(stage.name, 0.0, figures, skipped=True)
            self._plugins.notify(done)
            return
        resumed = folder.begun() is not None
        folder.begin(fingerprint)

        def run(done: ItemProgress) -> StageSummary:
            context = open_context(
                stage.name, self.recipe, self.run_dir, self._plugins, done
            )
            try:
                self._require_unchanged(stage.reads)
                with disk_errors(folder.path):  # of backends and plugins too
                    summary = stage.run(context)
                folder.finish({**fingerprint, "figures": summary})
                self._unchanged.add(stage.name)
            except BaseException as error:  # also Ctrl-C
                folder.forget()
                if not isinstance(error, KeyboardInterrupt):
                    log.error("stage %s failed", stage.name, exc_info=error)
                raise
            return summary

        run_observed(self._plugins, stage.name, run, resumed=resumed)

    def _require_unchanged(self, names: Sequence[str]) -> None:
        """Raise if the files of these stages changed; each is checked once."""
        stages = {stage.name for stage in stages_of(self.recipe)}
        for name in names:
            if name in stages and name not in self._unchanged:
                self.run_dir.stage(name).require_unchanged()
                self._unchanged.add(name)

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
        return {**settings, **stage.extra_settings(self.recipe, self._plugins.registry)}

    def _origins(self, stage: Stage) -> dict[str, str]:
        origins = {}
        for name, table in self._plugin_tables(stage):
            entry = self._plugins.registry.get(KIND_OF_TABLE[name], table.use)
            origins[f"{name}.{table.use}"] = entry.origin
            if name == "grade":
                origins["swebench"] = importlib.metadata.version("swebench")
        return origins

    def _plugin_tables(self, stage: Stage) -> Iterator[tuple[str, PluginTable]]:
        """A stage's tables that name a plugin, each with the table name of its kind."""
        for name in stage.tables:
            table = getattr(self.recipe, name)
            if isinstance(table, PluginTable):
                yield name, table
        if stage.name == "generate" and self.recipe.generate:
            for writer in self.recipe.generate.writers:
                yield "model", writer

    def _preflight(self, chosen: Sequence[Stage]) -> None:
        """Run the checks of unfinished stages, each once, before any stage starts."""
        todo = [s for s in chosen if not self.run_dir.stage(s.name).finished()]
        for check in dict.fromkeys(check for stage in todo for check in stage.checks):
            check(self.recipe, self._plugins.registry)

    def _with_dependents(self, names: Sequence[str]) -> list[str]:
        """The named stages of the recipe and everything downstream."""
        stages = stages_of(self.recipe)
        for name in names:
            choose(stages, only=name)
        return dependents(names, stages)

    def _refuse_other_format(self) -> None:
        """Raise if another version made the run directory."""
        facts = read_json(self.run_dir.facts)
        if facts is not None and (found := facts.get("format", 1)) != FORMAT:
            raise StageError(
                f"{self.run_dir.path} has format {found}; this version resumes only "
                f"format {FORMAT}.",
                hint="Start a new run with --name. `swebench-train report` still reads "
                "the old one.",
            )

    def _refuse_changes(
        self, fingerprints: Mapping[str, dict[str, Any]], rerun: Sequence[str]
    ) -> None:
        """Raise if a stage was started with settings that have changed since."""
        for name, new in fingerprints.items():
            folder = self.run_dir.stage(name)
            old = folder.begun()
            if name in rerun or old is None:
                continue
            if missing := [key for key in new if key not in old]:
                raise damaged(
                    folder.file("fingerprint.json"), f"{missing[0]} is missing"
                )
            if old["digest"] == new["digest"]:
                continue
            raise StageError(
                f"{self.run_dir.path}: stage {name} was run with different settings.\n"
                + "\n".join(f"  {line}" for line in _difference(old, new)),
                hint=(
                    f"Rerun it with --redo {name} (the old files are moved aside), "
                    "start another run with --name, or revert the change."
                ),
            )

    def _require_earlier(self, first: Stage, rerun: Sequence[str]) -> None:
        for stage in stages_of(self.recipe):
            if stage.name == first.name:
                return
            if stage.name in rerun or not self.run_dir.stage(stage.name).finished():
                raise StageError(
                    f"Stage {first.name} needs {stage.name}, which is not done.",
                    hint=f"Run the whole recipe, or run it with --until {stage.name} first.",
                )

    def _record_attempt(self) -> int:
        """Write recipe, settings and run.json; return the number of this attempt."""
        facts = read_json(self.run_dir.facts) or {"format": FORMAT, "attempts": []}
        if not isinstance(facts.get("attempts"), list):
            raise damaged(self.run_dir.facts, "attempts is not a list")
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
        """Send log records to the attempt's log file."""
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
            with suppress(OSError):  # a full disk, which the stage has reported
                handler.close()

    @contextmanager
    def _event_log(self) -> Iterator[None]:
        """Write every event to `events.jsonl`, except the recipe, which has its files."""
        with RowWriter(self.run_dir.events) as rows:

            def write(event: events.Event) -> None:
                if not isinstance(event, events.RecipeLoaded):
                    name = {"time": _now(), "event": type(event).__name__}
                    rows.write({**name, **to_jsonable_python(event)})

            observer = EventObserver(write)
            self._plugins.manager.register(observer, "event log")
            try:
                yield
            finally:
                self._plugins.manager.unregister(observer)


class _AttemptLog(logging.FileHandler):
    """A log file that ignores write errors; the stage reports a full disk."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the record."""


class _Masking(logging.Formatter):
    """Keeps API keys out of the log, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        """The record and its traceback as text."""
        return without_secrets(super().format(record))


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """The differences between two fingerprints, one line each."""
    for part in ("settings", "plugins", "inputs"):
        for key in sorted(old[part].keys() | new[part].keys()):
            before, after = old[part].get(key), new[part].get(key)
            if before == after:
                continue
            if part == "inputs":
                yield f"its input has changed: stage {key}"
            elif key == DATA_CONTENT:  # two digests would say nothing to a reader
                yield "the content of [data] has changed"
            else:
                yield f"{key}: {before!r} → {after!r}"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _versions() -> dict[str, str]:
    """Versions of this program and its dependencies."""
    lines = importlib.metadata.requires("swebench-trainer") or []
    needed = [re.split(r"[^\w-]", line)[0] for line in lines if "extra ==" not in line]
    found = {}
    for name in ("swebench-trainer", *needed):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _device() -> str:
    """The GPU's name if torch is already loaded and sees one, else `GPU` or `CPU`."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return "GPU" if shutil.which("nvidia-smi") else "CPU"
