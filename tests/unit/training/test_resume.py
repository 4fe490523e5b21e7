"""A training that is killed at any moment ends as one that nobody disturbed."""

from __future__ import annotations

import os
import shutil
import signal
import warnings
from collections.abc import Callable
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
    metrics,
    request_in,
    tensors,
)

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
SFT_2 = SFT.model_copy(update=SAVING)
DPO_2 = DPO.model_copy(update={**SAVING, "epochs": 3})
TRAININGS = {
    "sft": partial(train_sft, DROPOUT, ROWS, SFT_2),
    "sft nf4": partial(train_sft, QLORA, ROWS, SFT_2),
    "dpo with a shared prefix": partial(train_dpo, LORA, PAIRS, DPO_2),
    "dpo nf4": partial(
        train_dpo, QLORA, PAIRS, DPO_2.model_copy(update={"shared_prefix": False})
    ),
}
"""Six steps each, with checkpoints after 2, 4 and 6."""


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dies_in(train: Callable[[], object]) -> None:
    """Trains in a copy of this process, which must be killed by `die`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of the tests
        child = os.fork()
    if not child:
        try:
            train()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "it was not killed"
    assert os.WTERMSIG(status) == signal.SIGKILL


def at_step(wanted: int):
    def step(done: int, _total: int, _word: str) -> None:
        if done == wanted:
            die()

    return step


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory):
    """The directory of each training that nobody has disturbed."""
    made: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("undisturbed")
            TRAININGS[name](request_in(made[name]))
        return made[name]

    return of


@pytest.fixture(scope="module")
def killed_after_five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a training leaves that is killed after its fifth step."""
    folder = tmp_path_factory.mktemp("killed")
    dies_in(lambda: TRAININGS["sft"](request_in(folder, step=at_step(5))))
    return folder


@pytest.fixture
def killed(killed_after_five: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(killed_after_five, tmp_path / "killed")


def assert_same(found: Path, expected: Path) -> None:
    import torch

    assert metrics(found) == metrics(expected)
    mine, theirs = tensors(found / "adapter"), tensors(expected / "adapter")
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert {path.name for path in found.iterdir()} == {
        "adapter",
        "audit.json",
        "checkpointing.json",
        "metrics.jsonl",
    }


@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.parametrize(
    "step",
    [
        pytest.param(1, marks=pytest.mark.slow),
        3,
        pytest.param(6, marks=pytest.mark.slow),
    ],
)
def test_a_kill_after_any_step(tmp_path, undisturbed, name, step):
    expected = undisturbed(name)
    dies_in(lambda: TRAININGS[name](request_in(tmp_path, step=at_step(step))))
    TRAININGS[name](request_in(tmp_path))
    assert_same(tmp_path, expected)


def half_written(trainer, folder: str) -> None:
    """What a kill leaves of an optimizer's state that is being written."""
    Path(folder, "optimizer.pt").write_bytes(b"half of")
    if folder.endswith("-4"):
        die()


def sealed_by_half(real, checkpoint: Path) -> None:
    if checkpoint.name == "checkpoint-4":
        (checkpoint / "complete.json.partial").write_text('{"optimizer.pt": "')
        die()
    real(checkpoint)


def moved_by_half(real, source: Path, target: Path) -> None:
    real(source, target)
    if target.name == "adapter":
        die()  # the weights have their name, and no audit says so


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
            half_written(self, folder) if folder.endswith("-4") else save(self, folder)

        patch.setattr(Trainer, "_save_optimizer_and_scheduler", until_4)
    elif moment == "before a checkpoint is sealed":
        patch.setattr(checkpoints, "seal", partial(sealed_by_half, checkpoints.seal))
    elif moment == "while old checkpoints are removed":
        real = trainer.rotate_checkpoints
        patch.setattr(
            trainer, "rotate_checkpoints", partial(killed_while_pruning, real)
        )
    elif moment == "before the weights are saved":
        patch.setattr(saving, "save", die)
    elif moment == "when the weights have their name":
        patch.setattr(durable, "move", partial(moved_by_half, durable.move))
    elif moment == "before the checkpoints are removed":
        patch.setattr(training, "_remove_checkpoints", die)


@pytest.mark.parametrize(
    "moment",
    [
        "in the middle of a checkpoint",
        "before a checkpoint is sealed",
        "while old checkpoints are removed",
        "before the weights are saved",
        "when the weights have their name",
        "before the checkpoints are removed",
    ],
)
def test_a_kill_at_a_bad_moment(tmp_path, undisturbed, moment):
    expected = undisturbed("sft")

    def disturbed() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patches(moment, patch)
            TRAININGS["sft"](request_in(tmp_path))

    dies_in(disturbed)
    TRAININGS["sft"](request_in(tmp_path))
    assert_same(tmp_path, expected)


def no_bytes(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [no_bytes, zeros, cut])
@pytest.mark.parametrize("file", ["optimizer.pt", "trainer_state.json"])
def test_a_power_cut_that_took_what_was_written_last(killed, undisturbed, damage, file):
    expected = undisturbed("sft")
    damage(killed / "checkpoints" / "checkpoint-4" / file)
    with (killed / "metrics.jsonl").open("ab") as rows:
        rows.write(bytes(100))  # a file system has grown the file and not filled it
    steps = []
    request = request_in(killed, step=lambda done, *_: steps.append(done))
    TRAININGS["sft"](request)
    assert steps == [3, 4, 5, 6]
    assert_same(killed, expected)


def test_the_audit_says_which_checkpoints_were_lost(killed):
    import json

    cut(killed / "checkpoints" / "checkpoint-4" / "optimizer.pt")
    TRAININGS["sft"](request_in(killed))
    audit = json.loads((killed / "audit.json").read_text())
    assert audit["lost_checkpoints"] == ["checkpoint-4 is damaged"]


def test_all_checkpoints_lost_is_a_start_from_the_beginning(killed, undisturbed):
    expected = undisturbed("sft")
    for path in killed.glob("checkpoints/*/optimizer.pt"):
        no_bytes(path)
    TRAININGS["sft"](request_in(killed))
    assert_same(killed, expected)


def test_no_more_than_two_checkpoints_are_kept(tmp_path):
    settings = SFT.model_copy(update={"save_every": 1})
    seen = []

    def step(*_: object) -> None:
        seen.append({path.name for path in tmp_path.glob("checkpoints/*")})

    train_sft(LORA, ROWS, settings, request_in(tmp_path, step=step))
    assert [len(names) for names in seen] == [0, 1, 2, 2, 2, 2]
    assert seen[-1] == {"checkpoint-4", "checkpoint-5"}


def test_the_files_of_a_checkpoint_are_on_the_disk_before_it_is_sealed(
    tmp_path, monkeypatch
):
    events = []
    real_sync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        events.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real_sync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        events.append(f"named {target.name}")
        return real_replace(self, target)

    checkpoint = tmp_path / "checkpoint-2"
    (checkpoint / "ref").mkdir(parents=True)
    for name in ("optimizer.pt", "ref/adapter.safetensors"):
        (checkpoint / name).write_bytes(b"weights")
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    checkpoints.seal(checkpoint)
    named = events.index("named complete.json")
    assert {"optimizer.pt", "adapter.safetensors", "ref", "checkpoint-2"} <= set(
        events[:named]
    )
    assert events[named - 1] == "complete.json.partial"
    assert events[named + 1] == "checkpoint-2"


def test_other_micro_batches_go_on_where_the_first_ones_were(tmp_path, undisturbed):
    import torch

    expected = undisturbed("dpo with a shared prefix")
    first = TRAININGS["dpo with a shared prefix"]
    dies_in(lambda: first(request_in(tmp_path, step=at_step(5))))
    wider = DPO_2.model_copy(update={"micro_batch": 2})
    train_dpo(LORA, PAIRS, wider, request_in(tmp_path))
    for mine, theirs in zip(metrics(tmp_path), metrics(expected), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
    mine, theirs = tensors(tmp_path / "adapter"), tensors(expected / "adapter")
    for name, tensor in theirs.items():
        torch.testing.assert_close(mine[name], tensor, atol=1e-5, rtol=0)


def test_weights_that_are_half_written_are_written_again(killed):
    (killed / ".adapter.partial").mkdir()
    (killed / ".adapter.partial" / "junk").write_bytes(b"junk")
    weights = TRAININGS["sft"](request_in(killed))
    assert not (weights / "junk").exists()
    shutil.rmtree(weights)
