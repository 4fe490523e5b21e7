"""KTO trains single answers like TRL does, from tokens that are never truncated."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from pydantic import ValidationError
from training_examples import (
    DPO,
    FULL,
    LORA,
    PAIRS,
    metrics,
    request_in,
    same_weights,
    stop_after,
    tensors,
)

from swebench_trainer.contracts import TrainRequest
from swebench_trainer.errors import StageError
from swebench_trainer.recipe.models import DpoTable, semantic_settings
from swebench_trainer.training import kto
from swebench_trainer.training.dpo import train_dpo
from swebench_trainer.training.models.loading import load_tokenizer, load_trainable
from swebench_trainer.training.silence import silence_libraries
from swebench_trainer.training.tokens.rows import Encoded

KTO = DPO.model_copy(update={"loss": "kto", "micro_batch": 2, "epochs": 2})
ALONE = tuple(
    replace(p, rejected=None) if n % 2 else replace(p, chosen=None)
    for n, p in enumerate(PAIRS)
)


def test_policy_and_reference_start_equal_and_the_policy_learns(tmp_path, sft_adapter):
    import torch

    weights = train_dpo(LORA, PAIRS, KTO, request_in(tmp_path, start=sft_adapter))
    first, *_, last = metrics(tmp_path)
    kinds = ("rewards/chosen", "rewards/rejected")
    assert {first.get(kind, 0.0) for kind in kinds} == {0.0}
    assert first["kl"] == 0.0
    assert first["loss"] == pytest.approx(0.5)
    assert (
        len(metrics(tmp_path)) == 8
    )  # four pairs are eight answers, in steps of two, for two epochs
    assert last["loss"] < 0.5
    audit = json.loads((tmp_path / "audit.json").read_text())
    assert (audit["kept"], audit["cut"], audit["eos_trained"]) == (8, 0, True)
    assert audit["desirable_weight"] == audit["undesirable_weight"] == 1.0
    before, after = tensors(sft_adapter), tensors(weights)
    assert before.keys() == after.keys()
    assert not any(torch.equal(before[name], after[name]) for name in before)


def test_a_whole_model_can_be_trained_on_single_answers(tmp_path, sft_model):
    settings = KTO.model_copy(update={"learning_rate": 1e-4, "epochs": 4})
    train_dpo(FULL, ALONE, settings, request_in(tmp_path, start=sft_model))
    first, *_, last = metrics(tmp_path)
    assert first["kl"] == 0.0
    assert first["loss"] == pytest.approx(0.5)
    assert last["loss"] < 0.5


def test_the_steps_equal_those_of_trls_kto_on_text(tmp_path, sft_adapter):
    """With all rows in one batch, the order and the mismatches are the same."""
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    settings = KTO.model_copy(
        update={"batch_size": 4, "micro_batch": 4, "epochs": 3, "warmup_ratio": 0}
    )
    train_dpo(LORA, ALONE, settings, request_in(tmp_path / "ours", start=sft_adapter))
    tokenizer = load_tokenizer(LORA)
    order = kto.shuffled(ALONE, seed=0)
    rows = [
        {
            "prompt": tokenizer.apply_chat_template(
                [{"role": "user", "content": pair.prompt}],
                add_generation_prompt=True,
                tokenize=False,
            ),
            "completion": pair.chosen or pair.rejected,
            "label": pair.chosen is not None,
        }
        for pair in order
    ]
    with silence_libraries():
        trainer = KTOTrainer(
            model=load_trainable(LORA, sft_adapter, seed=0),
            args=KTOConfig(
                output_dir=str(tmp_path / "trl"),
                beta=settings.beta,
                learning_rate=settings.learning_rate,
                lr_scheduler_type="cosine",
                num_train_epochs=3,
                per_device_train_batch_size=4,
                save_strategy="no",
                logging_steps=1,
                use_cpu=True,
                bf16=False,
                disable_tqdm=True,
                report_to="none",
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        trainer.train()
    logged = [row for row in trainer.state.log_history if "loss" in row]
    for found, expected in zip(metrics(tmp_path / "ours"), logged, strict=True):
        for name in ("loss", "kl", "rewards/margins", "grad_norm"):
            assert found[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6), (
                name
            )


def test_a_killed_training_ends_with_the_same_bits_and_the_same_best(
    tmp_path, sft_adapter
):
    settings = KTO.model_copy(update={"epochs": 1, "save_every": 1, "validation": 0.3})

    def request(name: str, step=None) -> TrainRequest:
        return request_in(tmp_path / name, start=sft_adapter, seed=3, step=step)

    straight = train_dpo(LORA, PAIRS, settings, request("straight"))
    with pytest.raises(KeyboardInterrupt):
        train_dpo(LORA, PAIRS, settings, request("killed", stop_after(2)))
    resumed = train_dpo(LORA, PAIRS, settings, request("killed"))
    assert same_weights(straight, resumed)
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "straight")
    assert any("eval_loss" in row for row in metrics(tmp_path / "killed"))


def test_good_and_bad_answers_have_the_same_total_weight():
    rows = [Encoded("a", [1], ([2],), good=n < 3) for n in range(12)]
    assert kto.balance(rows) == {"desirable_weight": 2.0, "undesirable_weight": 2 / 3}
    with pytest.raises(StageError, match="All 3 answers are good"):
        kto.balance(rows[:3])


def test_a_mismatch_comes_from_another_prompt():
    rows = [Encoded("a", [p], ([n],)) for n, p in enumerate([1, 2, 2, 1])]
    found = [e["KL_completion_ids"] for e in kto.examples(rows)]
    assert found == [[2], [0], [0], [2]]
    assert [e["KL_completion_ids"] for e in kto.examples(rows[:1], rows)] == [[2]]
    with pytest.raises(StageError, match="two prompts"):
        kto.examples([rows[0], rows[3]])


def test_other_losses_refuse_single_answers(tmp_path):
    with pytest.raises(StageError, match="only one answer"):
        train_dpo(LORA, ALONE, DPO, request_in(tmp_path))


@pytest.mark.parametrize(
    "keys", [{"micro_batch": 1}, {"sft_weight": 0.1}, {"group_by_prompt": True}]
)
def test_keys_that_kto_does_not_use_are_refused(keys):
    with pytest.raises(ValidationError, match="kto"):
        DpoTable(**{"loss": "kto", "micro_batch": 2, **keys})


def test_the_micro_batch_is_only_in_fingerprints_of_kto():
    for loss, counts in (("kto", True), ("sigmoid", False)):
        two, four = (DpoTable(loss=loss, micro_batch=n) for n in (2, 4))
        assert (semantic_settings(two) != semantic_settings(four)) is counts
