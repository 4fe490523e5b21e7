"""Training in two processes on a CPU equals training in one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import rank_examples
from pydantic import ValidationError
from training_examples import (
    DPO,
    FULL,
    LORA,
    PAIRS,
    ROWS,
    SFT,
    metrics,
    request_in,
    stop_after,
    tensors,
)

from swebench_trainer.errors import PrerequisiteError, RecipeError, StageError
from swebench_trainer.recipe.models import SftTable, semantic_settings
from swebench_trainer.training.distributed import launch, ranks
from swebench_trainer.training.dpo import train_dpo
from swebench_trainer.training.sft import train_sft

TOLERANCE = 2e-6
"""For losses, which are summed in another order."""


def in_two(settings, **changes):
    return settings.model_copy(update={"processes": 2, **changes})


def assert_equal_trainings(one: Path, two: Path, name: str = "adapter") -> None:
    import torch

    for found, expected in zip(metrics(two), metrics(one), strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], abs=TOLERANCE)
        assert found["learning_rate"] == expected["learning_rate"]
        assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)
    expected, found = tensors(one / name), tensors(two / name)
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, atol=1e-5, rtol=0)


def make_importable(patch: pytest.MonkeyPatch) -> None:
    """Makes `rank_examples` importable in the ranks."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    make_importable(monkeypatch)


def in_ranks(function, out: Path, step=None) -> Path:
    return launch.train(function, LORA, ROWS, in_two(SFT), request_in(out, step=step))


def ranks_of(out: Path) -> list[int]:
    return [int(path.read_text()) for path in sorted(out.glob("pid-*"))]


def is_running(pid: int) -> bool:
    """Whether a process runs; a dead one may still wait to be reaped."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def eventually(holds, seconds: float = 240) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(holds())


@pytest.mark.slow
def test_sft_in_two_processes_equals_sft_in_one_even_if_a_rank_crashes_at_its_end(
    tmp_path, trained, examples, caplog
):
    settings = SFT.model_copy(update={"prompt_loss": 0.2})
    one = trained(train_sft, LORA, ROWS, settings).parent
    progress = []
    request = request_in(tmp_path, step=lambda *step: progress.append(step))
    crashing = rank_examples.train_and_abort_at_the_end
    weights = launch.train(crashing, LORA, ROWS, in_two(settings), request)
    assert weights == tmp_path / "adapter"
    assert_equal_trainings(one, tmp_path)
    assert [done for done, _, _ in progress] == [1, 2, 3, 4, 5, 6]
    assert progress[-1][2] == f"loss {metrics(tmp_path)[-1]['loss']:.3f}"
    assert {path.name for path in tmp_path.iterdir()} == {
        "adapter",
        "audit.json",
        "metrics.jsonl",
    }
    assert "training is complete, but: Process " in caplog.text


@pytest.mark.slow
def test_dpo_in_two_processes_equals_dpo_in_one(tmp_path, trained, sft_adapter):
    one = trained(train_dpo, LORA, PAIRS, DPO, start=sft_adapter).parent
    request = request_in(tmp_path, start=sft_adapter)
    launch.train(train_dpo, LORA, PAIRS, in_two(DPO), request)
    assert_equal_trainings(one, tmp_path)
    audit = json.loads((tmp_path / "audit.json").read_text())
    assert audit["shared_prefix"]
    assert metrics(tmp_path)[0]["rewards/margins"] == 0.0


def test_sharding_on_a_cpu_is_refused(tmp_path):
    sharded = in_two(SFT, sharding="fsdp")
    with pytest.raises(PrerequisiteError, match="needs GPUs"):
        launch.train(train_sft, LORA, ROWS, sharded, request_in(tmp_path))


def test_sharding_uses_fsdp2_and_gathers_the_weights_at_the_end():
    chosen = ranks.arguments(in_two(SFT, sharding="fsdp"))
    assert chosen["fsdp"]
    assert chosen["fsdp_config"]["version"] == 2
    assert chosen["fsdp_config"]["state_dict_type"] == "FULL_STATE_DICT"
    assert "fsdp" not in ranks.arguments(in_two(SFT))
    assert ranks.arguments(SFT) == {}


SAVING = SFT.model_copy(update={"save_every": 2})


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """Where a training in two processes was stopped after its fifth step of six."""
    out = tmp_path_factory.mktemp("stopped")
    hanging = rank_examples.train_and_hang_after_five
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        make_importable(patch)
        request = request_in(out, step=stop_after(5))
        launch.train(hanging, LORA, ROWS, in_two(SAVING), request)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("then", [2, 1])
def test_a_stopped_training_in_two_processes_is_resumed(
    tmp_path, trained, stopped, then
):
    one = trained(train_sft, LORA, ROWS, SAVING).parent
    out = tmp_path / "out"
    shutil.copytree(stopped, out)
    sealed = list(out.glob("checkpoints/*/complete.json"))
    assert {path.parent.name for path in sealed} >= {"checkpoint-4"}
    steps = []
    request = request_in(out, step=lambda done, *_: steps.append(done))
    rest = SAVING.model_copy(update={"processes": then})
    launch.train(train_sft, LORA, ROWS, rest, request)
    assert steps == [5, 6]
    assert_equal_trainings(one, out)
    assert not (out / "checkpoints").exists()


@pytest.mark.slow
def test_a_guard_that_fails_in_the_ranks_fails_the_stage(tmp_path):
    settings = in_two(SFT, learning_rate=1e30, max_grad_norm=1e30, warmup_ratio=0)
    with pytest.raises(StageError, match="diverged"):
        launch.train(train_sft, LORA, ROWS, settings, request_in(tmp_path))


def test_the_stage_raises_a_trainer_error_of_a_rank(tmp_path, examples):
    with pytest.raises(PrerequisiteError, match="no such thing") as caught:
        in_ranks(rank_examples.lack_something, tmp_path)
    assert caught.value.hint == "pip install thing"


@pytest.mark.slow
def test_the_stage_names_the_log_of_a_rank_that_failed_in_another_way(
    tmp_path, examples
):
    with pytest.raises(StageError, match="ValueError: out of luck") as caught:
        in_ranks(rank_examples.fail_in_the_second, tmp_path)
    log = tmp_path / "processes" / "rank-1.log"
    assert str(log) in caught.value.hint
    assert "in fail_in_the_second" in log.read_text()


@pytest.mark.slow
def test_the_stage_names_a_killed_rank_and_its_signal(tmp_path, examples):
    with pytest.raises(StageError, match=r"Process 1 .* SIGKILL"):
        in_ranks(rank_examples.die_in_the_second, tmp_path)


@pytest.mark.slow
def test_an_interrupted_stage_leaves_no_process(tmp_path, examples):
    def interrupt(*_: object) -> None:
        assert eventually(lambda: len(ranks_of(tmp_path)) == 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_ranks(rank_examples.work_without_end, tmp_path, interrupt)
    assert len(ranks_of(tmp_path)) == 2
    # A dying process releases its lock just before it counts as dead.
    assert eventually(lambda: not any(map(is_running, ranks_of(tmp_path))))


@pytest.mark.slow
def test_a_killed_stage_leaves_no_process(tmp_path, examples):
    code = f"""
from pathlib import Path
from test_processes import in_ranks, rank_examples
in_ranks(rank_examples.work_without_end, Path({str(tmp_path)!r}))
"""
    with subprocess.Popen([sys.executable, "-c", code]) as stage:
        started = eventually(lambda: len(ranks_of(tmp_path)) == 2)
        stage.send_signal(signal.SIGKILL)
    assert started
    assert eventually(lambda: not any(map(is_running, ranks_of(tmp_path))))


def test_processes_must_share_a_batch_evenly():
    assert SftTable(batch_size=8, micro_batch=2, processes=4).processes == 4
    with pytest.raises(ValidationError, match="micro_batch = 2 times processes = 3"):
        SftTable(batch_size=8, micro_batch=2, processes=3)


def test_sharding_whole_weights_is_refused(tmp_path):
    sharded = in_two(SFT, sharding="fsdp")
    with pytest.raises(RecipeError, match="only works with adapters"):
        launch.train(train_sft, FULL, ROWS, sharded, request_in(tmp_path))


def test_sharding_in_one_process_is_refused():
    with pytest.raises(ValidationError, match="needs processes above 1"):
        SftTable(sharding="fsdp")


def test_the_number_of_processes_is_not_in_fingerprints():
    table = SftTable(batch_size=8, processes=2, sharding="fsdp")
    assert semantic_settings(table) == semantic_settings(SftTable(batch_size=8))
