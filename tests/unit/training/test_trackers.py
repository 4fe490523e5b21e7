from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from pydantic import ValidationError
from training_examples import LORA, ROWS, SFT, metrics, request_in, stop_after

from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.recipe.models import SftTable, semantic_settings
from swebench_trainer.training.distributed import launch
from swebench_trainer.training.loop import trackers
from swebench_trainer.training.sft import train_sft

VARIABLES = ("TENSORBOARD_LOGGING_DIR", "WANDB_DIR", "MLFLOW_TRACKING_URI")


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


def curves(folder: Path) -> dict[str, dict[int, float]]:
    """The scalars of TensorBoard's files, by name and step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder)).Reload()
    return {
        name: {event.step: event.value for event in found.Scalars(name)}
        for name in found.Tags()["scalars"]
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(
    not importlib.util.find_spec("tensorboard"), reason="tensorboard is not installed"
)
def test_tensorboard_shows_one_curve_for_a_resumed_training(tmp_path):
    settings = SFT.model_copy(update={"trackers": ("tensorboard",), "save_every": 2})
    out = tmp_path / "runs" / "mine" / "stages" / "sft"
    with pytest.raises(KeyboardInterrupt):
        request = request_in(out, step=stop_after(3))
        launch.train(train_sft, LORA, ROWS, settings, request)
    launch.train(train_sft, LORA, ROWS, settings, request_in(out))
    losses = curves(out / "trackers" / "tensorboard")["train/loss"]
    assert losses == pytest.approx({row["step"]: row["loss"] for row in metrics(out)})
    assert set(losses) == {1, 2, 3, 4, 5, 6}


def test_a_resumed_run_keeps_its_name_and_id_and_the_environment_is_restored(tmp_path):
    import os

    out = tmp_path / "runs" / "mine" / "stages" / "dpo"
    seen = []
    for _ in range(2):
        with trackers.tracked(["wandb"], out):
            seen.append((os.environ["WANDB_RUN_ID"], os.environ["WANDB_NAME"]))
            assert os.environ["WANDB_MODE"] == "offline"
            assert Path(os.environ["WANDB_DIR"]) == out / "trackers"
    assert seen[0] == seen[1]
    assert seen[0][1] == "mine/dpo"
    assert not any(name in os.environ for name in VARIABLES)


def test_settings_of_the_user_take_precedence(tmp_path, monkeypatch):
    import os

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example")
    monkeypatch.setenv("WANDB_API_KEY", "a secret")
    with trackers.tracked(["wandb"], tmp_path):
        assert os.environ["MLFLOW_TRACKING_URI"] == "http://mlflow.example"
        assert "WANDB_MODE" not in os.environ
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://mlflow.example"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not any(b"a secret" in path.read_bytes() for path in files)


def test_without_trackers_nothing_is_reported(tmp_path):
    with trackers.tracked([], tmp_path):
        assert not (tmp_path / "trackers").exists()
    with trackers.tracked(["tensorboard"], tmp_path):
        assert not (tmp_path / "trackers").exists()  # it creates its own files
    assert trackers.arguments([], tmp_path) == {"report_to": "none"}


def test_missing_trackers_are_named_with_the_command_to_install_them(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(PrerequisiteError, match="wandb, mlflow") as caught:
        trackers.check(["wandb", "mlflow"])
    assert caught.value.hint == "pip install wandb mlflow"


def test_an_unknown_tracker_is_a_recipe_error():
    with pytest.raises(ValidationError, match="tensorboard"):
        SftTable(trackers=("tensorbord",))


def test_trackers_are_not_in_fingerprints():
    assert semantic_settings(SftTable(trackers=("wandb",))) == semantic_settings(
        SftTable()
    )


def test_sft_and_dpo_share_the_directory_of_trackio(tmp_path, monkeypatch):
    import os

    monkeypatch.delenv("TRACKIO_DIR", raising=False)
    places = []
    for stage in ("sft", "dpo"):
        with trackers.tracked(["trackio"], tmp_path / "mine" / "stages" / stage):
            places.append(os.environ["TRACKIO_DIR"])
    assert places == [str(tmp_path / "mine" / "trackers" / "trackio")] * 2
