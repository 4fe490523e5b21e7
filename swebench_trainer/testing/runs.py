"""Whole runs in a test: the real pipeline, with fakes for the parts not under test."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from swebench_trainer.commands import inputs
from swebench_trainer.commands.run import print_plugin_rows
from swebench_trainer.events import Event, ItemDone
from swebench_trainer.pipeline import Pipeline
from swebench_trainer.plugins.manager import EventObserver, Plugins
from swebench_trainer.stages.graph import choose, stages_of
from swebench_trainer.store.jsonl import read_json, read_rows
from swebench_trainer.testing import fakes

Keys = Mapping[str, Any]

DEFAULTS: Mapping[str, Keys] = {
    "data": {"use": "fake", "holdout": {"fraction": 0}},
    "contents": {"places": ["task"]},
    "prompt": {"answer": "diff"},
    "model": {"use": "fake"},
    "sft": {},
    "generate": {"samples": 4},
    "grade": {"use": "fake", "counter_runs": False},
    "pairs": {"use": "self-generated"},
    "dpo": {},
    "evaluate": {"splits": ["train"]},
}
"""The recipe of `Trainer.run`: every stage except publish, in about a second."""

VARYING = ("timings.jsonl", "logs")
"""Names of files that differ between equal runs."""


LIFECYCLE = tuple(event.hook for event in get_args(Event))
"""The lifecycle hooks, in the order in which a run calls them."""


@dataclass(frozen=True)
class Heard:
    """One call: the name of the hook, and its event."""

    hook: str
    event: Any


class HookRecorder(EventObserver):
    """Records every event of a run.

    Attributes:
        heard: The calls, in order.
    """

    def __init__(self) -> None:
        super().__init__(lambda event: self.heard.append(Heard(event.hook, event)))
        self.heard: list[Heard] = []

    def of(self, hook: str, stage: str | None = None) -> list[Any]:
        """The events of a hook, optionally of only one stage."""
        return [
            one.event
            for one in self.heard
            if one.hook == hook and stage in (None, getattr(one.event, "stage", ""))
        ]

    def stages(self) -> list[str]:
        """The stages that finished, or were already finished, in order."""
        return [event.stage for event in self.of("stage_finished")]


@dataclass
class Run:
    """The result of a run.

    Attributes:
        dir: The run directory.
        hooks: The recorded events.
        output: The printed text.
        interrupted: Whether it was stopped by `interrupt`.
    """

    dir: Path
    hooks: HookRecorder = field(default_factory=HookRecorder)
    output: str = ""
    interrupted: bool = False

    def stage(self, name: str) -> Path:
        """The directory of a stage."""
        return self.dir / "stages" / name

    def rows(self, stage: str, file: str) -> list[dict[str, Any]]:
        """The rows of a stage's JSONL file."""
        return read_rows(self.stage(stage) / file)

    def json(self, stage: str, file: str) -> Any:
        """The value of a stage's JSON file."""
        return read_json(self.stage(stage) / file)

    def results(self) -> dict[str, bytes]:
        """The content of every result file, by path, without timings and logs."""
        stages = self.dir / "stages"
        return {
            path.relative_to(stages).as_posix(): path.read_bytes()
            for path in sorted(stages.rglob("*"))
            if path.is_file() and not set(VARYING) & set(path.relative_to(stages).parts)
        }


class Trainer:
    """Runs recipes in a directory, in this process.

    Installed plugins are loaded as usual, and so are the fakes `[data] use = "fake"`,
    `[model] use = "fake"` and `[grade] use = "fake"`.

    Attributes:
        folder: Directory of recipes and runs.
        last: The latest run, available even if it raised.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last: Run | None = None
        self._added: list[tuple[Any, str, str]] = []

    def add(self, plugin: Any, name: str = "under-test", origin: str = "a test") -> Any:
        """Register a plugin that is not installed, for all later runs; return it."""
        self._added.append((plugin, name, origin))
        return plugin

    def run(
        self,
        *,
        name: str = "test",
        recipe: str | None = None,
        until: str | None = None,
        redo: Sequence[str] = (),
        interrupt: tuple[str, int] | None = None,
        **tables: Any,
    ) -> Run:
        """Run a recipe, or resume it.

        Args:
            name: Name of the run.
            recipe: The text of a recipe, in place of `DEFAULTS`.
            until: The last stage.
            redo: Stages to rerun.
            interrupt: A stage, and the number of its items before Ctrl-C.
            tables: Tables that replace the tables of `DEFAULTS`, as mappings of their
                keys; `None` removes one.

        Raises:
            TrainerError: As on the command line; `last` has the partial run.
        """
        path = self.folder / f"{name}.toml"
        if recipe is None:
            wanted = {**DEFAULTS, **tables}
            recipe = to_toml({"schema_version": 1, "name": name, **wanted})
        path.write_text(recipe)
        output = io.StringIO()
        console = Console(file=output, width=200)
        run = self.last = Run(self.folder / "runs" / name)
        try:
            plugins = self._plugins(console, run.hooks, interrupt)
            valid, draft = inputs.load_recipe(path, [], plugins)
            run.dir = self.folder / "runs" / valid.name
            stages = choose(stages_of(valid), last=until)
            Pipeline(valid, draft, self.folder / "runs", plugins).run(stages, redo)
            print_plugin_rows(plugins, run.dir, console)
        except _Interrupted:
            run.interrupted = True
        finally:
            run.output = output.getvalue()
        return run

    def _plugins(
        self, console: Console, hooks: HookRecorder, interrupt: tuple[str, int] | None
    ) -> Plugins:
        plugins = inputs.load_plugins()
        plugins.add(fakes, "fakes", "swebench_trainer.testing")
        for plugin in self._added:
            plugins.add(*plugin)
        plugins.load_installed()
        inputs.show_progress(plugins, console)
        plugins.add(hooks, "recorder", "swebench_trainer.testing")
        if interrupt is not None:
            observer = EventObserver(partial(_interrupt, *interrupt))
            plugins.add(observer, "ctrl-c", "swebench_trainer.testing")
        return plugins


class _Interrupted(KeyboardInterrupt):
    """Ctrl-C, simulated by a test."""


def _interrupt(stage: str, items: int, event: Event) -> None:
    """Simulate Ctrl-C after a number of items of a stage."""
    if isinstance(event, ItemDone) and event.stage == stage and event.done >= items:
        raise _Interrupted


def to_toml(recipe: Mapping[str, Any]) -> str:
    """A recipe of plain values as TOML, without keys that are `None`."""
    lines = [
        f"{key} = {_value(value)}"
        for key, value in recipe.items()
        if not (value is None or isinstance(value, Mapping))
    ]
    for table, keys in recipe.items():
        if isinstance(keys, Mapping):
            lines += ["", f"[{table}]"]
            lines += [f"{k} = {_value(v)}" for k, v in keys.items() if v is not None]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{k} = {_value(v)}" for k, v in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(str(value) if isinstance(value, Path) else value)


def check_resume(
    trainer: Trainer,
    *,
    stage: str = "generate",
    items: int = 2,
    deterministic: bool = True,
    **tables: Any,
) -> None:
    """Check that a run that was stopped in a stage resumes with its earlier work.

    Args:
        trainer: The fixture.
        stage: Stage to stop: `generate` or `grade`.
        items: Number of its items before Ctrl-C.
        deterministic: Whether an undisturbed run must give equal results.
        tables: See `Trainer.run`.
    """
    number = sum(1 for _ in trainer.folder.glob("whole-*.toml"))
    whole = trainer.run(name=f"whole-{number}", until=stage, **tables)
    name = f"cut-{number}"
    cut = trainer.run(name=name, until=stage, interrupt=(stage, items), **tables)
    assert cut.interrupted, f"{stage} finished before {items} items"
    kept = cut.results()
    ended = trainer.run(name=name, until=stage, **tables)
    for path, content in kept.items():
        if path.endswith(("candidates.jsonl", "verdicts.jsonl")):
            rows, left = content.splitlines(), ended.results()[path].splitlines()
            assert set(rows) <= set(left), f"rows of {path} were made again"
    counts = [event.done for event in ended.hooks.of("item_done", stage)]
    assert counts and counts[0] > items, "earlier items must count as done"
    if deterministic:
        expected = {
            path: content.replace(whole.dir.name.encode(), name.encode())
            for path, content in whole.results().items()
        }
        for path, content in ended.results().items():
            if not path.endswith(("stage.json", "fingerprint.json")):
                assert content == expected[path], f"{path} differs after a resumed run"


def assert_no_secrets(run: Run | Path, *variables: str) -> None:
    """Check that neither the files nor the output of a run contain a secret.

    Args:
        run: A run, or any directory.
        variables: Names of environment variables that hold the secrets. Each must be
            set, to at least eight characters.
    """
    folder, output = (run.dir, run.output) if isinstance(run, Run) else (run, "")
    for variable in variables:
        secret = os.environ.get(variable, "")
        assert len(secret) >= 8, f"{variable} must be set to at least eight characters"
        assert secret not in output, f"the value of {variable} was printed"
        forms = {secret.encode(), json.dumps(secret)[1:-1].encode()}
        for path in sorted(folder.rglob("*")):
            content = path.read_bytes() if path.is_file() else b""
            leaks = secret in path.name or any(form in content for form in forms)
            assert not leaks, f"{path} contains the value of {variable}"
