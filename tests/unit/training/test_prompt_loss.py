"""The weight of prompt tokens, relative to answer tokens."""

from __future__ import annotations

import pytest
from small_models import PAD, open_model
from training_examples import FULL, SFT, metrics, request_in

from swebench_trainer.training.batching.prompt_loss import weighted
from swebench_trainer.training.models.loading import load_tokenizer
from swebench_trainer.training.sft import train_sft
from swebench_trainer.training.tokens.rows import ANSWER, Encoded, encode_rows
from swebench_trainer.types import SftRow

ROWS = tuple(
    SftRow(f"demo__demo-{n}", "Fix it. " * (1 + 3 * n), f"value += {n}\n" * (2 + n))
    for n in range(2)
)


def log_probabilities(table, start):
    """Of each token of the rows after the first, before the first step."""
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    model, _ = open_model(table, checkpointing=False)
    collate = DataCollatorForLanguageModeling(PAD)
    for row in encode_rows(load_tokenizer(table, start), ROWS):
        batch = collate([row.as_sft(prompt_loss=1)])
        with torch.no_grad():
            found = model(**batch, fused_lm_head=True, use_cache=False)
        yield len(row.prompt) - 1, found.log_probs[0].tolist()


@pytest.mark.parametrize("weight", [0, 0.2, 0.9, 1])
@pytest.mark.parametrize("micro_batch", [1, 2])
def test_the_loss_is_the_weighted_mean_over_the_tokens_of_a_step(
    tmp_path, weight, micro_batch
):
    request = request_in(tmp_path / "out")
    settings = SFT.model_copy(
        update={
            "epochs": 1,
            "batch_size": 2,
            "micro_batch": micro_batch,
            "packing": False,
            "prompt_loss": weight,
        }
    )
    total = weights = 0.0
    for prompt, tokens in log_probabilities(FULL, request.start):
        total -= weight * sum(tokens[:prompt]) + sum(tokens[prompt:])
        weights += weight * prompt + len(tokens) - prompt
    train_sft(FULL, ROWS, settings, request)
    assert metrics(tmp_path / "out")[0]["loss"] == pytest.approx(total / weights, 1e-4)


def test_a_row_has_an_answer_mask_only_if_the_weights_differ():
    row = Encoded("a", [4, 5, 6], ([7, 8],))
    assert row.as_sft(prompt_loss=0.2)[ANSWER] == [0, 0, 0, 1, 1]
    assert ANSWER not in row.as_sft() and ANSWER not in row.as_sft(prompt_loss=1)


def test_without_different_weights_the_trainer_is_unchanged():
    assert weighted(dict, 0) is dict and weighted(dict, 1.0) is dict
