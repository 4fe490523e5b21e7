"""KTO: answers by themselves, as TRL trains them, from tokens that are never cut."""

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
    ROWS,
    SFT,
    metrics,
    request_in,
    stop_after,
    tensors,
)

from swebench_trainer.errors import StageError
from swebench_trainer.recipe.models import DpoTable, semantic_settings
from swebench_trainer.training import kto
from swebench_trainer.training.dpo import train_dpo
from swebench_trainer.training.models.loading import load_tokenizer, load_trainable
from swebench_trainer.training.sft import train_sft
from swebench_trainer.training.silence import silence_libraries
from swebench_trainer.training.tokens.rows import Encoded

KTO = DPO.model_copy(update={"loss": "kto", "micro_batch": 2, "epochs": 2})
ALONE = tuple(
    replace(p, rejected=None) if n % 2 else replace(p, chosen=None)
    for n, p in enumerate(PAIRS)
)


def test_it_starts_at_its_reference_and_tells_good_from_bad(tmp_path, sft_adapter):
    import torch

    weights = train_dpo(LORA, PAIRS, KTO, request_in(tmp_path, start=sft_adapter))
    first, *_, last = metrics(tmp_path)
    kinds = ("rewards/chosen", "rewards/rejected")
    assert {first.get(kind, 0.0) for kind in kinds} == {0.0}
    assert first["kl"] == 0.0
    assert first["loss"] == pytest.approx(0.5)
    assert len(metrics(tmp_path)) == 8  # four pairs are eight answers, in twos, twice
    assert last["loss"] < 0.5
    audit = json.loads((tmp_path / "audit.json").read_text())
    assert (audit["kept"], audit["cut"], audit["eos_trained"]) == (8, 0, True)
    assert audit["desirable_weight"] == audit["undesirable_weight"] == 1.0
    before, after = tensors(sft_adapter), tensors(weights)
    assert before.keys() == after.keys()
    assert not any(torch.equal(before[name], after[name]) for name in before)


def test_every_weight_can_be_trained_on_answers_that_stand_alone(tmp_path):
    start = train_sft(FULL, ROWS, SFT, request_in(tmp_path / "sft"))
    settings = KTO.model_copy(update={"learning_rate": 1e-4, "epochs": 4})
    train_dpo(FULL, ALONE, settings, request_in(tmp_path / "kto", start=start))
    first, *_, last = metrics(tmp_path / "kto")
    assert first["kl"] == 0.0
    assert first["loss"] == pytest.approx(0.5)
    assert last["loss"] < 0.5


def test_it_is_trls_own_kto_where_that_can_be_had_from_text(tmp_path, sft_adapter):
    """All rows in one batch: the order and the mismatches are the same."""
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
    for mine, theirs in zip(metrics(tmp_path / "ours"), logged, strict=True):
        for name in ("loss", "kl", "rewards/margins", "grad_norm"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6), name


def test_a_killed_training_ends_with_the_same_bits_and_the_same_best(
    tmp_path, sft_adapter
):
    import torch

    settings = KTO.model_copy(update={"save_every": 2, "validation": 0.3})
    runs = {}
    for name, step in (("straight", None), ("killed", stop_after(3))):
        request = request_in(tmp_path / name, start=sft_adapter, seed=3, step=step)
        if step:
            with pytest.raises(KeyboardInterrupt):
                train_dpo(LORA, PAIRS, settings, request)
            request = request_in(tmp_path / name, start=sft_adapter, seed=3)
        runs[name] = tensors(train_dpo(LORA, PAIRS, settings, request))
    assert all(torch.equal(t, runs["killed"][n]) for n, t in runs["straight"].items())
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "straight")
    assert any("eval_loss" in row for row in metrics(tmp_path / "killed"))


def test_good_and_bad_answers_count_the_same():
    rows = [Encoded("a", [1], ([2],), good=n < 3) for n in range(12)]
    assert kto.balance(rows) == {"desirable_weight": 2.0, "undesirable_weight": 2 / 3}
    with pytest.raises(StageError, match="All 3 answers are good"):
        kto.balance(rows[:3])


def test_a_mismatch_belongs_to_another_prompt():
    rows = [Encoded("a", [p], ([n],)) for n, p in enumerate([1, 2, 2, 1])]
    found = [e["KL_completion_ids"] for e in kto.examples(rows)]
    assert found == [[2], [0], [0], [2]]
    assert [e["KL_completion_ids"] for e in kto.examples(rows[:1], rows)] == [[2]]
    with pytest.raises(StageError, match="two prompts"):
        kto.examples([rows[0], rows[3]])


def test_other_losses_refuse_answers_that_stand_alone(tmp_path):
    with pytest.raises(StageError, match="only one answer"):
        train_dpo(LORA, ALONE, DPO, request_in(tmp_path))


@pytest.mark.parametrize(
    "keys", [{"micro_batch": 1}, {"sft_weight": 0.1}, {"group_by_prompt": True}]
)
def test_keys_that_kto_has_no_use_for_are_refused(keys):
    with pytest.raises(ValidationError, match="kto"):
        DpoTable(**{"loss": "kto", "micro_batch": 2, **keys})


def test_the_micro_batch_decides_the_result_of_kto_alone():
    for loss, counts in (("kto", True), ("sigmoid", False)):
        two, four = (DpoTable(loss=loss, micro_batch=n) for n in (2, 4))
        assert (semantic_settings(two) != semantic_settings(four)) is counts
