"""Milestones: weights from the middle of a training, and their times."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from training_examples import (
    DPO,
    FULL,
    LORA,
    PAIRS,
    ROWS,
    SFT,
    request_in,
    same_weights,
    stop_after,
    tensors,
)

from swebench_trainer.recipe.models import SftTable
from swebench_trainer.store.jsonl import read_rows
from swebench_trainer.training.dpo import train_dpo
from swebench_trainer.training.loop.callbacks import steps_of
from swebench_trainer.training.sft import train_sft

SIX = SFT.model_copy(update={"epochs": 6, "batch_size": len(ROWS)})


def same(left, right) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(left[name], right[name]) for name in left
    )


@pytest.mark.parametrize("table", [LORA, FULL], ids=["lora", "full"])
def test_milestones_have_the_weights_of_their_steps_after_a_kill_too(
    tmp_path, trained, table
):
    settings = SIX.model_copy(update={"milestones": 3, "save_every": 2})
    with pytest.raises(KeyboardInterrupt):
        train_sft(table, ROWS, settings, request_in(tmp_path, step=stop_after(5)))
    (at_four,) = (tmp_path / "milestones/4").iterdir()
    fourth = tensors(at_four)
    assert same(fourth, tensors(tmp_path / "checkpoints/checkpoint-4"))

    weights = train_sft(table, ROWS, settings, request_in(tmp_path))
    rows = read_rows(tmp_path / "milestones.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 6]
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)
    named = [row.get("weights") for row in rows]
    assert named == [f"milestones/{n}/{weights.name}" for n in (2, 4)] + [None]
    assert same(fourth, tensors(tmp_path / named[1]))
    assert not same(fourth, tensors(tmp_path / named[0]))
    assert not same(fourth, tensors(weights))
    # Milestones do not affect the training.
    assert same_weights(weights, trained(train_sft, table, ROWS, SIX))


def test_milestones_of_dpo_do_not_contain_the_reference(tmp_path, sft_adapter):
    settings = DPO.model_copy(update={"milestones": 2, "epochs": 1})
    train_dpo(LORA, PAIRS, settings, request_in(tmp_path, start=sft_adapter))
    first, last = read_rows(tmp_path / "milestones.jsonl")
    assert last["step"] == 2 * first["step"]
    assert tensors(tmp_path / first["weights"]).keys() == tensors(sft_adapter).keys()


@pytest.mark.parametrize(
    ("number", "total", "steps"),
    [(4, 8, (2, 4, 6, 8)), (3, 10, (3, 7, 10)), (9, 2, (1, 2))],
)
def test_milestones_are_evenly_spaced_and_include_the_last_step(number, total, steps):
    assert steps_of(number, total) == steps


@pytest.mark.parametrize(
    "other",
    [{"validation": 0.1}, {"sharding": "fsdp", "processes": 2, "batch_size": 4}],
)
def test_settings_that_milestones_do_not_support_are_refused(other):
    with pytest.raises(ValidationError, match="milestones cannot be combined"):
        SftTable(milestones=2, **other)
