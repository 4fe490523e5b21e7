from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from training_examples import (
    FULL,
    LORA,
    ROWS,
    SFT,
    metrics,
    request_in,
    stop_after,
    tensors,
)

from swebench_trainer.errors import RecipeError, StageError
from swebench_trainer.store.jsonl import write_json
from swebench_trainer.training.loop import training
from swebench_trainer.training.loop.training import (
    Training,
    _drop_rows_after,
    for_token_rows,
)
from swebench_trainer.training.models import saving, tiny
from swebench_trainer.training.models.loading import load_model
from swebench_trainer.training.models.table import HfTable
from swebench_trainer.training.sft import train_sft
from swebench_trainer.training.silence import silence_libraries
from swebench_trainer.types import SftRow

DROPOUT = HfTable(
    name="builtin:tiny",
    quantization="none",
    lora={"rank": 4, "alpha": 8, "dropout": 0.2},
)


def same(left, right) -> bool:
    import torch

    a, b = tensors(left), tensors(right)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def written(folder: Path) -> dict[Path, int]:
    """When each file was last written, in nanoseconds."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: path.stat().st_mtime_ns for path in files}


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_adapter_is_saved_in_peft_layout_under_the_public_name(sft_adapter):
    names = {path.name for path in sft_adapter.iterdir()}
    config = json.loads((sft_adapter / "adapter_config.json").read_text())
    assert names == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "swebench_trainer.json",
    }
    assert config["base_model_name_or_path"] == "builtin:tiny"
    assert config["target_modules"] == sorted(config["target_modules"])
    assert {str(t.dtype) for t in tensors(sft_adapter).values()} == {"torch.float32"}


def test_an_adapter_does_not_tell_where_its_base_model_lies(tmp_path):
    tiny.write_tiny(tmp_path / "my-model")
    table = LORA.model_copy(update={"name": str(tmp_path / "my-model")})
    weights = train_sft(table, ROWS, SFT, request_in(tmp_path / "sft"))
    config = json.loads((weights / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "my-model"
    assert str(tmp_path) not in json.dumps(config)
    with silence_libraries():
        load_model(table, weights)


def test_the_stage_directory_tells_what_was_trained(tmp_path):
    progress = []
    request = request_in(tmp_path, step=lambda *step: progress.append(step))
    train_sft(LORA, ROWS, SFT, request)
    audit = json.loads((tmp_path / "audit.json").read_text())
    rows = metrics(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "adapter",
        "audit.json",
        "checkpointing.json",
        "metrics.jsonl",
    }
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [done for done, _, _ in progress] == [1, 2, 3, 4, 5, 6]
    assert progress[-1] == (6, 6, f"loss {rows[-1]['loss']:.3f}")
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert audit["kept"] == 4
    assert audit["dropped"] == []
    assert audit["eos_trained"]
    assert audit["trainable_parameters"] > 0
    assert audit["moved"] > 0.9
    assert audit["loss"] == rows[-1]["loss"]
    assert audit["weights"] == "adapter"


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(tmp_path):
    runs = [
        train_sft(DROPOUT, ROWS, SFT, request_in(tmp_path / name, seed=seed))
        for name, seed in (("one", 1), ("again", 1), ("two", 2))
    ]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


@pytest.mark.parametrize("table", [DROPOUT, FULL], ids=["lora", "full"])
def test_a_killed_and_resumed_training_ends_with_the_same_bits(tmp_path, table):
    settings = SFT.model_copy(update={"save_every": 2})
    straight = train_sft(table, ROWS, settings, request_in(tmp_path / "straight"))
    out = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        train_sft(table, ROWS, settings, request_in(out, step=stop_after(5)))
    assert (out / "checkpoints" / "checkpoint-4" / "complete.json").exists()
    steps = []
    request = request_in(out, step=lambda done, *_: steps.append(done))
    resumed = train_sft(table, ROWS, settings, request)
    assert steps == [5, 6]
    assert same(straight, resumed)
    assert metrics(out) == metrics(tmp_path / "straight")
    assert not (out / "checkpoints").exists()


def test_a_kill_between_the_last_step_and_the_saving_costs_no_step(
    tmp_path, monkeypatch
):
    settings = SFT.model_copy(update={"save_every": 2})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(saving, "save", interrupt)
        train_sft(LORA, ROWS, settings, request_in(tmp_path))
    steps = []
    request = request_in(tmp_path, step=lambda done, *_: steps.append(done))
    weights = train_sft(LORA, ROWS, settings, request)
    assert steps == []
    assert json.loads((tmp_path / "audit.json").read_text())["steps"] == 6
    assert (weights / "adapter_model.safetensors").exists()


def test_a_kill_between_the_saving_and_the_audit_ends_with_the_same_bits(
    tmp_path, monkeypatch
):
    settings = SFT.model_copy(update={"save_every": 4})
    straight = train_sft(DROPOUT, ROWS, settings, request_in(tmp_path / "straight"))
    out = tmp_path / "killed"

    def killed_at_the_end(path: Path, value: dict) -> None:
        if "loss" in value:
            raise KeyboardInterrupt
        write_json(path, value)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "write_json", killed_at_the_end)
        train_sft(DROPOUT, ROWS, settings, request_in(out))
    assert (out / "adapter").is_dir()
    assert (out / "checkpoints").is_dir()
    assert same(straight, train_sft(DROPOUT, ROWS, settings, request_in(out)))
    assert not (out / "checkpoints").exists()


@pytest.mark.parametrize("table", [LORA, FULL], ids=["lora", "full"])
def test_a_finished_training_is_not_done_again(tmp_path, table):
    weights = train_sft(table, ROWS, SFT, request_in(tmp_path))
    before = written(tmp_path)
    (tmp_path / "checkpoints").mkdir()  # as a kill before their removal leaves them
    steps = []
    request = request_in(tmp_path, step=lambda done, *_: steps.append(done))
    assert train_sft(table, ROWS, SFT, request) == weights
    assert steps == []
    assert written(tmp_path) == before
    assert not (tmp_path / "checkpoints").exists()


def test_a_finished_training_whose_weights_are_gone_is_done_again(tmp_path):
    shutil.rmtree(train_sft(LORA, ROWS, SFT, request_in(tmp_path)))
    assert train_sft(LORA, ROWS, SFT, request_in(tmp_path)).is_dir()


def test_a_broken_checkpoint_costs_steps_and_not_the_run(tmp_path):
    settings = SFT.model_copy(update={"save_every": 2})
    with pytest.raises(KeyboardInterrupt):
        train_sft(LORA, ROWS, settings, request_in(tmp_path, step=stop_after(5)))
    broken = tmp_path / "checkpoints" / "checkpoint-4" / "optimizer.pt"
    broken.write_bytes(broken.read_bytes()[:100])
    steps = []
    request = request_in(tmp_path, step=lambda done, *_: steps.append(done))
    train_sft(LORA, ROWS, settings, request)
    assert steps == [3, 4, 5, 6]
    assert [row["step"] for row in metrics(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_a_metrics_row_that_was_cut_short_is_forgotten(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    _drop_rows_after(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_all_weights_are_saved_as_a_model_with_its_tokenizer(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    weights = train_sft(FULL, ROWS, SFT, request_in(tmp_path))
    assert weights == tmp_path / "model"
    AutoModelForCausalLM.from_pretrained(weights)
    assert AutoTokenizer.from_pretrained(weights).chat_template


def test_micro_batches_do_not_change_what_is_learned(tmp_path):
    import torch

    results = []
    for micro in (1, 2):
        settings = SFT.model_copy(update={"micro_batch": micro})
        request = request_in(tmp_path / str(micro))
        results.append(tensors(train_sft(LORA, ROWS, settings, request)))
    for name, tensor in results[0].items():
        torch.testing.assert_close(tensor, results[1][name], atol=2e-4, rtol=0)


def test_one_step_is_not_spent_on_the_warm_up(tmp_path):
    settings = SFT.model_copy(
        update={"epochs": 1, "batch_size": 4, "warmup_ratio": 0.1}
    )
    train_sft(LORA, ROWS, settings, request_in(tmp_path))
    assert metrics(tmp_path)[0]["learning_rate"] == settings.learning_rate


def test_a_long_row_is_dropped_and_named(tmp_path):
    long = SftRow("demo__demo-long", "Fix it.", "x = 1\n" * 500)
    train_sft(LORA, [*ROWS, long], SFT, request_in(tmp_path))
    audit = json.loads((tmp_path / "audit.json").read_text())
    assert audit["dropped"] == ["demo__demo-long"]


def test_a_rate_that_moves_nothing_is_an_error(tmp_path):
    settings = SFT.model_copy(update={"learning_rate": 1e-50})
    with pytest.raises(StageError, match="did not change any weight"):
        train_sft(FULL, ROWS, settings, request_in(tmp_path))
    assert not (tmp_path / "model").exists()


def test_a_rate_that_explodes_is_an_error(tmp_path):
    settings = SFT.model_copy(
        update={"learning_rate": 1e30, "max_grad_norm": 1e30, "warmup_ratio": 0}
    )
    with pytest.raises(StageError, match="diverged"):
        train_sft(FULL, ROWS, settings, request_in(tmp_path))


def test_targets_that_are_not_in_the_model_are_named(tmp_path):
    table = HfTable(
        name="builtin:tiny", quantization="none", lora={"targets": ["c_attn"]}
    )
    with pytest.raises(RecipeError, match="c_attn"):
        train_sft(table, ROWS, SFT, request_in(tmp_path))


def test_one_process_trains_on_one_device(tmp_path):
    """With two GPUs in sight the trainer would double the batches on its own."""
    from trl import SFTConfig

    class Trainer:
        def __init__(self, *, args):
            self.args = args

    config = SFTConfig(
        **Training(
            LORA, SFT, request_in(tmp_path), None, list(ROWS), [], {}
        ).arguments()
    )
    assert config.n_gpu <= 1  # a CPU: they are set up now
    config._n_gpu = 2
    assert config.train_batch_size == 2 * SFT.micro_batch
    trainer = for_token_rows(Trainer)(args=config)
    assert trainer.args.train_batch_size == SFT.micro_batch
