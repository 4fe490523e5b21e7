"""Supervised fine-tuning: its files, its results, and its errors."""

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
    same_weights,
    stop_after,
    tensors,
)

from swebench_trainer.errors import RecipeError, StageError
from swebench_trainer.training.loop.training import (
    Training,
    _drop_rows_after,
    for_token_rows,
)
from swebench_trainer.training.models import tiny
from swebench_trainer.training.models.loading import load_model
from swebench_trainer.training.models.table import HfTable
from swebench_trainer.training.sft import train_sft
from swebench_trainer.training.silence import silence_libraries
from swebench_trainer.types import SftRow

ONE_EPOCH = SFT.model_copy(update={"epochs": 1})
DROPOUT = HfTable(
    name="builtin:tiny",
    quantization="none",
    lora={"rank": 4, "alpha": 8, "dropout": 0.2},
)


def written(folder: Path) -> dict[Path, int]:
    """The modification time of each file, in nanoseconds."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: path.stat().st_mtime_ns for path in files}


def test_an_adapter_is_saved_in_peft_layout_with_the_models_public_name(sft_adapter):
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


def test_an_adapter_does_not_reveal_the_path_of_its_base_model(tmp_path):
    tiny.write_tiny(tmp_path / "my-model")
    table = LORA.model_copy(update={"name": str(tmp_path / "my-model")})
    weights = train_sft(table, ROWS, ONE_EPOCH, request_in(tmp_path / "sft"))
    config = json.loads((weights / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "my-model"
    assert str(tmp_path) not in json.dumps(config)
    with silence_libraries():
        load_model(table, weights)


def test_the_stage_directory_records_the_training(tmp_path):
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


def test_the_seed_determines_the_bits(tmp_path, trained):
    first = trained(train_sft, DROPOUT, ROWS, SFT)
    again, other = (
        train_sft(DROPOUT, ROWS, SFT, request_in(tmp_path / str(seed), seed=seed))
        for seed in (0, 1)
    )
    assert same_weights(first, again)
    assert not same_weights(first, other)


@pytest.mark.parametrize("table", [DROPOUT, FULL], ids=["lora", "full"])
def test_a_killed_and_resumed_training_ends_with_the_same_bits(
    tmp_path, trained, table
):
    straight = trained(train_sft, table, ROWS, SFT)
    settings = SFT.model_copy(update={"save_every": 2})
    with pytest.raises(KeyboardInterrupt):
        train_sft(table, ROWS, settings, request_in(tmp_path, step=stop_after(5)))
    assert (tmp_path / "checkpoints" / "checkpoint-4" / "complete.json").exists()
    steps = []
    request = request_in(tmp_path, step=lambda done, *_: steps.append(done))
    assert same_weights(straight, train_sft(table, ROWS, settings, request))
    assert steps == [5, 6]
    assert metrics(tmp_path) == metrics(straight.parent)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("table", [LORA, FULL], ids=["lora", "full"])
def test_a_finished_training_is_not_repeated(tmp_path, trained, table):
    weights = trained(train_sft, table, ROWS, SFT)
    out = shutil.copytree(weights.parent, tmp_path / "sft")
    before = written(out)
    (out / "checkpoints").mkdir()  # left by a kill just before their removal
    request = request_in(out, step=stop_after(1))
    assert train_sft(table, ROWS, SFT, request) == out / weights.name
    assert written(out) == before
    assert not (out / "checkpoints").exists()


def test_a_finished_training_without_its_weights_is_repeated(tmp_path, sft_adapter):
    out = shutil.copytree(sft_adapter.parent, tmp_path / "sft")
    shutil.rmtree(out / "adapter")
    assert train_sft(LORA, ROWS, SFT, request_in(out)).is_dir()


def test_a_truncated_metrics_row_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    _drop_rows_after(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_whole_model_is_saved_with_its_tokenizer(sft_model):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert sft_model.name == "model"
    AutoModelForCausalLM.from_pretrained(sft_model)
    assert AutoTokenizer.from_pretrained(sft_model).chat_template


def test_micro_batches_do_not_change_the_result(tmp_path, sft_adapter):
    import torch

    settings = SFT.model_copy(update={"micro_batch": 2})
    found = tensors(train_sft(LORA, ROWS, settings, request_in(tmp_path)))
    for name, tensor in tensors(sft_adapter).items():
        torch.testing.assert_close(found[name], tensor, atol=2e-4, rtol=0)


def test_a_training_of_one_step_has_no_warm_up(tmp_path):
    settings = SFT.model_copy(
        update={"epochs": 1, "batch_size": 4, "warmup_ratio": 0.1}
    )
    train_sft(LORA, ROWS, settings, request_in(tmp_path))
    assert metrics(tmp_path)[0]["learning_rate"] == settings.learning_rate


def test_a_row_that_is_too_long_is_dropped_and_named(tmp_path):
    long = SftRow("demo__demo-long", "Fix it.", "x = 1\n" * 500)
    train_sft(LORA, [*ROWS, long], ONE_EPOCH, request_in(tmp_path))
    audit = json.loads((tmp_path / "audit.json").read_text())
    assert audit["dropped"] == ["demo__demo-long"]


def test_a_learning_rate_that_changes_nothing_is_an_error(tmp_path):
    settings = SFT.model_copy(update={"learning_rate": 1e-50, "epochs": 1})
    with pytest.raises(StageError, match="did not change any weight"):
        train_sft(FULL, ROWS, settings, request_in(tmp_path))
    assert not (tmp_path / "model").exists()


def test_a_learning_rate_that_diverges_is_an_error(tmp_path):
    settings = SFT.model_copy(
        update={"learning_rate": 1e30, "max_grad_norm": 1e30, "warmup_ratio": 0}
    )
    with pytest.raises(StageError, match="diverged"):
        train_sft(FULL, ROWS, settings, request_in(tmp_path))


def test_lora_targets_that_the_model_lacks_are_named(tmp_path):
    table = HfTable(
        name="builtin:tiny", quantization="none", lora={"targets": ["c_attn"]}
    )
    with pytest.raises(RecipeError, match="c_attn"):
        train_sft(table, ROWS, SFT, request_in(tmp_path))


def test_one_process_trains_on_one_device(tmp_path):
    """If it saw two GPUs, the trainer would double the batches."""
    from trl import SFTConfig

    class Trainer:
        def __init__(self, *, args):
            self.args = args

    config = SFTConfig(
        **Training(
            LORA, SFT, request_in(tmp_path), None, list(ROWS), [], {}
        ).arguments()
    )
    assert config.n_gpu <= 1  # on a CPU, where the argument is set up now
    config._n_gpu = 2
    assert config.train_batch_size == 2 * SFT.micro_batch
    trainer = for_token_rows(Trainer)(args=config)
    assert trainer.args.train_batch_size == SFT.micro_batch
