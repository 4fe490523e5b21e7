"""Training in two processes on a CPU, against the same training in one."""

from __future__ import annotations

import json
import os
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
from swebench_trainer.training.distributed import launch, sharding
from swebench_trainer.training.dpo import train_dpo
from swebench_trainer.training.sft import train_sft

TOLERANCE = 2e-6
"""Of losses; sums are taken in another order."""


def in_two(settings, **changes):
    return settings.model_copy(update={"processes": 2, **changes})


def assert_equal_trainings(one: Path, two: Path, name: str = "adapter") -> None:
    import torch

    steps = list(zip(metrics(one), metrics(two), strict=True))
    for mine, theirs in steps:
        assert theirs["loss"] == pytest.approx(mine["loss"], abs=TOLERANCE)
        assert theirs["learning_rate"] == mine["learning_rate"]
        assert theirs["grad_norm"] == pytest.approx(mine["grad_norm"], rel=1e-4)
    expected, found = tensors(one / name), tensors(two / name)
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, atol=1e-5, rtol=0)


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets ranks import `rank_examples`."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))


def in_ranks(function, out: Path, step=None) -> Path:
    return launch.train(function, LORA, ROWS, in_two(SFT), request_in(out, step=step))


def ranks_of(out: Path) -> list[int]:
    return [int(path.read_text()) for path in sorted(out.glob("pid-*"))]


def works(pid: int) -> bool:
    """Whether a process runs; one that is dead may still await its new parent."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def soon(holds, seconds: float = 240) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(holds())


@pytest.mark.slow
@pytest.mark.parametrize("prompt_loss", [0, 0.2])
def test_sft_in_two_processes_equals_sft_in_one(tmp_path, prompt_loss):
    progress = []
    settings = SFT.model_copy(update={"prompt_loss": prompt_loss})
    train_sft(LORA, ROWS, settings, request_in(tmp_path / "one"))
    request = request_in(tmp_path / "two", step=lambda *step: progress.append(step))
    weights = launch.train(train_sft, LORA, ROWS, in_two(settings), request)
    assert weights == tmp_path / "two" / "adapter"
    assert_equal_trainings(tmp_path / "one", tmp_path / "two")
    assert [done for done, _, _ in progress] == [1, 2, 3, 4, 5, 6]
    assert progress[-1][2] == f"loss {metrics(tmp_path / 'two')[-1]['loss']:.3f}"
    assert {path.name for path in (tmp_path / "two").iterdir()} == {
        "adapter",
        "audit.json",
        "metrics.jsonl",
    }


@pytest.mark.slow
def test_dpo_in_two_processes_equals_dpo_in_one(tmp_path, sft_adapter):
    for name, settings in (("one", DPO), ("two", in_two(DPO))):
        request = request_in(tmp_path / name, start=sft_adapter)
        launch.train(train_dpo, LORA, PAIRS, settings, request)
    assert_equal_trainings(tmp_path / "one", tmp_path / "two")
    audit = json.loads((tmp_path / "two" / "audit.json").read_text())
    assert audit["shared_prefix"]
    assert metrics(tmp_path / "two")[0]["rewards/margins"] == 0.0


def test_a_cpu_shards_nothing(tmp_path):
    sharded = in_two(SFT, sharding="fsdp")
    with pytest.raises(PrerequisiteError, match="needs GPUs"):
        launch.train(train_sft, LORA, ROWS, sharded, request_in(tmp_path))


def test_sharding_is_the_second_fsdp_and_puts_the_weights_together_at_the_end():
    chosen = sharding.arguments(in_two(SFT, sharding="fsdp"))
    assert chosen["fsdp"]
    assert chosen["fsdp_config"]["version"] == 2
    assert chosen["fsdp_config"]["state_dict_type"] == "FULL_STATE_DICT"
    assert "fsdp" not in sharding.arguments(in_two(SFT))
    assert sharding.arguments(SFT) == {}


@pytest.mark.slow
@pytest.mark.parametrize("then", [2, 1])
def test_a_stopped_training_in_two_processes_goes_on(tmp_path, examples, then):
    settings = SFT.model_copy(update={"save_every": 2})
    train_sft(LORA, ROWS, settings, request_in(tmp_path / "one"))
    out = tmp_path / "two"
    with pytest.raises(KeyboardInterrupt):
        request = request_in(out, step=stop_after(5))
        hanging = rank_examples.train_and_hang_after_five
        launch.train(hanging, LORA, ROWS, in_two(settings), request)
    sealed = list(out.glob("checkpoints/*/complete.json"))
    assert {path.parent.name for path in sealed} >= {"checkpoint-4"}
    steps = []
    request = request_in(out, step=lambda done, *_: steps.append(done))
    rest = settings.model_copy(update={"processes": then})
    launch.train(train_sft, LORA, ROWS, rest, request)
    assert steps == [5, 6]
    assert_equal_trainings(tmp_path / "one", out)
    assert not (out / "checkpoints").exists()


@pytest.mark.slow
def test_a_rank_that_crashes_at_its_end_costs_no_training(tmp_path, examples, caplog):
    weights = in_ranks(rank_examples.train_and_abort_at_the_end, tmp_path)
    assert (weights / "adapter_model.safetensors").exists()
    assert "training is complete, but: Process " in caplog.text
    assert not (tmp_path / "processes").exists()


@pytest.mark.slow
def test_a_guard_in_the_ranks_is_an_error_of_the_stage(tmp_path):
    settings = in_two(SFT, learning_rate=1e30, max_grad_norm=1e30, warmup_ratio=0)
    with pytest.raises(StageError, match="diverged"):
        launch.train(train_sft, LORA, ROWS, settings, request_in(tmp_path))


def test_an_error_of_ours_in_a_rank_is_that_of_the_stage(tmp_path, examples):
    with pytest.raises(PrerequisiteError, match="no such thing") as caught:
        in_ranks(rank_examples.lack_something, tmp_path)
    assert caught.value.hint == "pip install thing"


def test_another_error_of_a_rank_names_the_log_with_its_traceback(tmp_path, examples):
    with pytest.raises(StageError, match="ValueError: out of luck") as caught:
        in_ranks(rank_examples.fail_in_the_second, tmp_path)
    log = tmp_path / "processes" / "rank-1.log"
    assert str(log) in caught.value.hint
    assert "in fail_in_the_second" in log.read_text()


def test_a_rank_that_is_killed_is_named_with_its_signal(tmp_path, examples):
    with pytest.raises(StageError, match=r"Process 1 .* SIGKILL"):
        in_ranks(rank_examples.die_in_the_second, tmp_path)


def test_an_interrupted_stage_leaves_no_process(tmp_path, examples):
    def interrupt(*_: object) -> None:
        assert soon(lambda: len(ranks_of(tmp_path)) == 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_ranks(rank_examples.work_without_end, tmp_path, interrupt)
    assert len(ranks_of(tmp_path)) == 2
    # A dying process lets go of its lock a moment before it counts as dead.
    assert soon(lambda: not any(map(works, ranks_of(tmp_path))))


def test_a_killed_stage_leaves_no_process(tmp_path, examples):
    code = f"""
from pathlib import Path
from test_processes import in_ranks, rank_examples
in_ranks(rank_examples.work_without_end, Path({str(tmp_path)!r}))
"""
    with subprocess.Popen([sys.executable, "-c", code]) as stage:
        started = soon(lambda: len(ranks_of(tmp_path)) == 2)
        stage.send_signal(signal.SIGKILL)
    assert started
    assert soon(lambda: not any(map(works, ranks_of(tmp_path))))


def test_processes_share_a_batch_evenly():
    assert SftTable(batch_size=8, micro_batch=2, processes=4).processes == 4
    with pytest.raises(ValidationError, match="micro_batch = 2 times processes = 3"):
        SftTable(batch_size=8, micro_batch=2, processes=3)


def test_all_weights_are_not_sharded(tmp_path):
    sharded = in_two(SFT, sharding="fsdp")
    with pytest.raises(RecipeError, match="only works with adapters"):
        launch.train(train_sft, FULL, ROWS, sharded, request_in(tmp_path))


def test_one_process_has_nothing_to_shard():
    with pytest.raises(ValidationError, match="needs processes above 1"):
        SftTable(sharding="fsdp")


def test_the_number_of_processes_is_no_other_result():
    table = SftTable(batch_size=8, processes=2, sharding="fsdp")
    assert semantic_settings(table) == semantic_settings(SftTable(batch_size=8))
