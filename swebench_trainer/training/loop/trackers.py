"""Experiment trackers, through transformers' own callbacks.

Each writes to `trackers/` of the stage unless one of its own environment variables says
otherwise, and continues the same tracker run after a resume. Keys and tokens stay in the
environment; this package never writes them to a file.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.recipe.models import Tracker
from swebench_trainer.store.jsonl import write_bytes

PROJECT = "swebench-trainer"


def check(names: Sequence[Tracker]) -> None:
    """Checks that the trackers are installed.

    Raises:
        PrerequisiteError: One is missing.
    """
    missing = [name for name in names if not importlib.util.find_spec(name)]
    if missing:
        raise PrerequisiteError(
            f"These trackers are not installed: {', '.join(missing)}.",
            hint=f"pip install {' '.join(missing)}",
        )


def arguments(names: Sequence[Tracker], out: Path) -> dict[str, Any]:
    """Arguments of the trainer.

    Args:
        names: Trackers to report to.
        out: Directory of the stage.
    """
    if not names:
        return {"report_to": "none"}
    return {
        "report_to": list(names),
        "run_name": _name(out),
        "project": PROJECT,
        "trackio_static_space_id": False,  # otherwise trackio uploads to the Hub
    }


@contextmanager
def tracked(
    names: Sequence[Tracker], out: Path, *, first: bool = True
) -> Iterator[None]:
    """Sets the trackers' directories, and the tracker runs to continue.

    Args:
        names: Trackers to report to.
        out: Directory of the stage.
        first: Whether this is the first process of the training, the one that reports.
    """
    with ExitStack() as stack:
        if names:
            settings = _settings(out)
            if "wandb" in names:
                settings |= _wandb(out / "trackers", _name(out))
            stack.enter_context(_environment(settings))
        if "wandb" in names and first:
            stack.callback(_end_wandb)
        if "mlflow" in names and first:
            stack.enter_context(_mlflow_run(out))
        yield


def _name(out: Path) -> str:
    """Name of the tracker run: those of the run directory and the stage."""
    return f"{_run(out).name}/{out.name}"


def _run(out: Path) -> Path:
    """The run directory of a stage's directory."""
    return out.parent.parent if out.parent.name == "stages" else out.parent


def _settings(out: Path) -> dict[str, str]:
    """Environment variables of the trackers."""
    folder = out / "trackers"
    return {
        "TENSORBOARD_LOGGING_DIR": str(folder / "tensorboard"),
        # It is read once per process, so SFT and DPO must share a directory.
        "TRACKIO_DIR": str(_run(out) / "trackers" / "trackio"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "MLFLOW_EXPERIMENT_NAME": PROJECT,
        "MLFLOW_LOGGING_LEVEL": "ERROR",
    }


def _wandb(folder: Path, name: str) -> dict[str, str]:
    settings = {
        "WANDB_DIR": str(folder),
        "WANDB_PROJECT": PROJECT,
        "WANDB_NAME": name,
        "WANDB_RUN_ID": _kept(folder / "wandb.id", uuid.uuid4().hex),
        "WANDB_RESUME": "allow",
        "WANDB_SILENT": "true",
        "WANDB_CONSOLE": "off",
        # Otherwise wandb uploads code from the working directory.
        "WANDB_DISABLE_CODE": "true",
        "WANDB_DISABLE_GIT": "true",
    }
    if "WANDB_API_KEY" not in os.environ:
        settings["WANDB_MODE"] = "offline"  # otherwise wandb prompts for a key
    return settings


def _end_wandb() -> None:
    """Ends the run; otherwise the next training in this process would continue it."""
    if wandb := sys.modules.get("wandb"):
        wandb.finish()


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Sets environment variables that the user has not set."""
    ours = {key: value for key, value in settings.items() if key not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for key in ours:
            os.environ.pop(key, None)


@contextmanager
def _mlflow_run(out: Path) -> Iterator[None]:
    """Opens a new MLflow run, or the one of the previous attempt."""
    import mlflow

    path = out / "trackers" / "mlflow.id"
    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    mlflow.set_experiment(os.environ["MLFLOW_EXPERIMENT_NAME"])
    known = path.read_text() if path.exists() else None
    # A run has its settings already, and MLflow refuses changes (of a micro-batch, say).
    settings = {"MLFLOW_MAX_LOG_PARAMS": "0"} if known else {}
    with (
        _environment(settings),
        mlflow.start_run(known, run_name=None if known else _name(out)) as run,
    ):
        _kept(path, run.info.run_id)
        yield


def _kept(path: Path, value: str) -> str:
    """The content of a file, which is created with `value` if it does not exist."""
    if not path.exists():
        write_bytes(path, value.encode())
    return path.read_text()
