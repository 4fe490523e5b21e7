"""Plain TRL learns nothing in 4 bits at DPO's learning rates; our training does."""

from __future__ import annotations

import json

import pytest
from training_examples import DPO, PAIRS, QLORA, request_in

from swebench_trainer.errors import StageError
from swebench_trainer.training.dpo import train_dpo
from swebench_trainer.training.loop import guards
from swebench_trainer.training.models.loading import load_tokenizer, load_trainable
from swebench_trainer.training.silence import silence_libraries

RATE = 5e-7
SETTINGS = DPO.model_copy(
    update={
        "epochs": 4,
        "learning_rate": RATE,
        "warmup_ratio": 0,
        "schedule": "constant",
    }
)


def test_plain_trl_in_four_bits_trips_the_guard(tmp_path, qlora_adapter):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    with silence_libraries():
        trainer = DPOTrainer(
            model=load_trainable(QLORA, qlora_adapter, seed=0),
            args=DPOConfig(
                output_dir=str(tmp_path),
                learning_rate=RATE,
                lr_scheduler_type="constant",
                num_train_epochs=SETTINGS.epochs,
                per_device_train_batch_size=SETTINGS.batch_size,
                save_strategy="no",
                use_cpu=True,
                bf16=False,
                disable_tqdm=True,
                report_to="none",
            ),
            train_dataset=Dataset.from_list(
                [
                    {"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected}
                    for p in PAIRS
                ]
            ),
            processing_class=load_tokenizer(QLORA),
        )
        before = guards.sample_weights(trainer.model)
        trainer.train()
    assert trainer.state.global_step == 8
    with pytest.raises(StageError, match=r"elements changed .* in bfloat16"):
        guards.require_moved(before, trainer.model, trainer.state.global_step)


def test_our_training_of_the_same_rows_at_the_same_rate_passes_the_guard(
    tmp_path, qlora_adapter
):
    train_dpo(QLORA, PAIRS, SETTINGS, request_in(tmp_path, start=qlora_adapter))
    audit = json.loads((tmp_path / "audit.json").read_text())
    assert audit["steps"] == 8
    assert audit["moved"] > 0.9
    assert audit["cut"] == 0
    assert audit["fully_masked"] == []


def test_an_untrained_adapter_as_reference_is_an_error(tmp_path, qlora_adapter):
    from safetensors.torch import load_file, save_file

    fresh = tmp_path / "adapter"
    fresh.mkdir()
    for file in qlora_adapter.iterdir():
        fresh.joinpath(file.name).write_bytes(file.read_bytes())
    tensors = load_file(fresh / "adapter_model.safetensors")
    zeros = {n: t * 0 if "lora_B" in n else t for n, t in tensors.items()}
    save_file(zeros, fresh / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(StageError, match="reference would be the base model"):
        train_dpo(QLORA, PAIRS, SETTINGS, request_in(tmp_path / "dpo", start=fresh))
