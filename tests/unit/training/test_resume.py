"""A training killed at any moment ends like an undisturbed one."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
from training_examples import (
    DPO,
    LORA,
    PAIRS,
    QLORA,
    ROWS,
    SFT,
    die,
    die_at,
    dies_in,
    metrics,
    request_in,
    same_weights,
    tensors,
)

from swebench_trainer.contracts import TrainRequest
from swebench_trainer.store import durable
from swebench_trainer.training.dpo import train_dpo
from swebench_trainer.training.loop import checkpoints, training
from swebench_trainer.training.models import saving
from swebench_trainer.training.models.table import HfTable
from swebench_trainer.training.sft import train_sft

DROPOUT = HfTable(
    name="builtin:tiny",
    quantization="none",
    lora={"rank": 4, "alpha": 8, "dropout": 0.2},
)
SAVING = {"save_every": 2}
DPO_3 = DPO.model_copy(update={"epochs": 3})
PLAIN_DPO_3 = DPO_3.model_copy(update={"shared_prefix": False})
TRAININGS = {
    "sft": (train_sft, DROPOUT, ROWS, SFT),
    "sft nf4": (train_sft, QLORA, ROWS, SFT),
    "dpo with a shared prefix": (train_dpo, LORA, PAIRS, DPO_3),
    "dpo nf4": (train_dpo, QLORA, PAIRS, PLAIN_DPO_3),
}
"""Six steps each."""


def train(name: str, request: TrainRequest) -> Path:
    """Trains with checkpoints after steps 2, 4 and 6."""
    function, table, rows, settings = TRAININGS[name]
    return function(table, rows, settings.model_copy(update=SAVING), request)


@pytest.fixture
def undisturbed(trained):
    """Returns the directory of an undisturbed training, without checkpoints, by name."""
    return lambda name: trained(*TRAININGS[name]).parent


@pytest.fixture(scope="module")
def killed_after_five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a training that was killed after its fifth step."""
    folder = tmp_path_factory.mktemp("killed")
    dies_in(lambda: train("sft", request_in(folder, step=die_at(5))))
    return folder


@pytest.fixture
def killed(killed_after_five: Path, tmp_path: Path) -> Path:
    """A copy of `killed_after_five`."""
    return shutil.copytree(killed_after_five, tmp_path / "killed")


def assert_same(found: Path, expected: Path) -> None:
    assert metrics(found) == metrics(expected)
    assert same_weights(found / "adapter", expected / "adapter")
    assert {path.name for path in found.iterdir()} == {
        "adapter",
        "audit.json",
        "checkpointing.json",
        "metrics.jsonl",
    }


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("sft", 3),
        ("dpo with a shared prefix", 3),
        *(
            pytest.param(name, step, marks=pytest.mark.slow)
            for name in TRAININGS
            for step in (1, 3, 6)
            if step != 3 or "nf4" in name
        ),
    ],
)
def test_a_training_killed_after_a_step_ends_with_the_same_bits(
    tmp_path, undisturbed, name, step
):
    expected = undisturbed(name)
    dies_in(lambda: train(name, request_in(tmp_path, step=die_at(step))))
    train(name, request_in(tmp_path))
    assert_same(tmp_path, expected)


def half_written(folder: str) -> None:
    """Leaves a partial optimizer state, like a kill while it is written."""
    Path(folder, "optimizer.pt").write_bytes(b"half of")
    die()


def half_sealed(real, checkpoint: Path) -> None:
    if checkpoint.name == "checkpoint-4":
        (checkpoint / "complete.json.partial").write_text('{"optimizer.pt": "')
        die()
    real(checkpoint)


def killed_after_move(real, source: Path, target: Path) -> None:
    real(source, target)
    if target.name == "adapter":
        die()  # the weights are in place, but the audit does not name them


def killed_while_pruning(real, **options) -> None:
    folder = Path(options["output_dir"])
    if (folder / "checkpoint-6").exists():
        (folder / "checkpoint-2" / "optimizer.pt").unlink()
        die()
    real(**options)


def patches(moment: str, patch: pytest.MonkeyPatch) -> None:
    from transformers import Trainer, trainer

    if moment == "in the middle of a checkpoint":
        save = Trainer._save_optimizer_and_scheduler

        def until_4(self, folder: str) -> None:
            half_written(folder) if folder.endswith("-4") else save(self, folder)

        patch.setattr(Trainer, "_save_optimizer_and_scheduler", until_4)
    elif moment == "before a checkpoint is sealed":
        patch.setattr(checkpoints, "seal", partial(half_sealed, checkpoints.seal))
    elif moment == "while old checkpoints are removed":
        real = trainer.rotate_checkpoints
        patch.setattr(
            trainer, "rotate_checkpoints", partial(killed_while_pruning, real)
        )
    elif moment == "before the weights are saved":
        patch.setattr(saving, "save", die)
    elif moment == "after the weights are in place":
        patch.setattr(durable, "move", partial(killed_after_move, durable.move))
    elif moment == "before the checkpoints are removed":
        patch.setattr(training, "_remove_checkpoints", die)


@pytest.mark.parametrize(
    ("moment", "repeated"),
    [
        ("in the middle of a checkpoint", [3, 4, 5, 6]),
        ("before a checkpoint is sealed", [3, 4, 5, 6]),
        ("while old checkpoints are removed", [5, 6]),
        ("before the weights are saved", []),
        ("after the weights are in place", []),
        ("before the checkpoints are removed", []),
    ],
)
def test_a_training_killed_while_it_writes_ends_with_the_same_bits(
    tmp_path, undisturbed, moment, repeated
):
    expected = undisturbed("sft")

    def disturbed() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patches(moment, patch)
            train("sft", request_in(tmp_path))

    dies_in(disturbed)
    steps = []
    train("sft", request_in(tmp_path, step=lambda done, *_: steps.append(done)))
    assert steps == repeated
    assert_same(tmp_path, expected)


def no_bytes(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [no_bytes, zeros, cut])
@pytest.mark.parametrize("file", ["optimizer.pt", "trainer_state.json"])
def test_a_checkpoint_damaged_by_a_power_cut_gives_way_to_the_one_before(
    killed, damage, file
):
    folder = killed / "checkpoints"
    damage(folder / "checkpoint-4" / file)
    assert checkpoints.newest_complete(folder) == folder / "checkpoint-2"
    assert not (folder / "checkpoint-4").exists()


def test_a_training_repeats_the_steps_lost_in_a_power_cut(killed, undisturbed):
    no_bytes(killed / "checkpoints" / "checkpoint-4" / "optimizer.pt")
    with (killed / "metrics.jsonl").open("ab") as rows:
        rows.write(bytes(100))  # the file system had grown the file but not filled it
    steps = []
    request = request_in(killed, step=lambda done, *_: steps.append(done))
    train("sft", request)
    assert steps == [3, 4, 5, 6]
    assert_same(killed, undisturbed("sft"))
    audit = json.loads((killed / "audit.json").read_text())
    assert audit["lost_checkpoints"] == ["checkpoint-4 is damaged"]


def test_a_training_without_an_intact_checkpoint_starts_again(killed, undisturbed):
    for path in killed.glob("checkpoints/*/optimizer.pt"):
        no_bytes(path)
    train("sft", request_in(killed))
    assert_same(killed, undisturbed("sft"))


def test_at_most_two_checkpoints_are_kept(tmp_path):
    settings = SFT.model_copy(update={"save_every": 1})
    seen = []

    def step(*_: object) -> None:
        seen.append({path.name for path in tmp_path.glob("checkpoints/*")})

    train_sft(LORA, ROWS, settings, request_in(tmp_path, step=step))
    assert [len(names) for names in seen] == [0, 1, 2, 2, 2, 2]
    assert seen[-1] == {"checkpoint-4", "checkpoint-5"}


def test_the_files_of_a_checkpoint_are_synced_before_its_manifest(
    tmp_path, monkeypatch
):
    events = []
    real_sync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        events.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real_sync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        events.append(f"renamed to {target.name}")
        return real_replace(self, target)

    checkpoint = tmp_path / "checkpoint-2"
    (checkpoint / "ref").mkdir(parents=True)
    for name in ("optimizer.pt", "ref/adapter.safetensors"):
        (checkpoint / name).write_bytes(b"weights")
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    checkpoints.seal(checkpoint)
    renamed = events.index("renamed to complete.json")
    assert {"optimizer.pt", "adapter.safetensors", "ref", "checkpoint-2"} <= set(
        events[:renamed]
    )
    assert events[renamed - 1] == "complete.json.partial"
    assert events[renamed + 1] == "checkpoint-2"


def test_a_training_can_be_resumed_with_other_micro_batches(tmp_path, undisturbed):
    import torch

    name = "dpo with a shared prefix"
    expected = undisturbed(name)
    dies_in(lambda: train(name, request_in(tmp_path, step=die_at(5))))
    wider = DPO_3.model_copy(update={**SAVING, "micro_batch": 2})
    train_dpo(LORA, PAIRS, wider, request_in(tmp_path))
    for found, wanted in zip(metrics(tmp_path), metrics(expected), strict=True):
        assert found["loss"] == pytest.approx(wanted["loss"], abs=1e-5)
    found = tensors(tmp_path / "adapter")
    for name, tensor in tensors(expected / "adapter").items():
        torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=0)


def test_partially_written_weights_are_written_again(killed):
    (killed / ".adapter.partial").mkdir()
    (killed / ".adapter.partial" / "junk").write_bytes(b"junk")
    weights = train("sft", request_in(killed))
    assert not (weights / "junk").exists()
