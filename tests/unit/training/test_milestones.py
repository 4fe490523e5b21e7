"""The weights of the moments in between, and when they were."""

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
    stop_after,
    tensors,
)

from swebench_trainer.recipe.models import SftTable
from swebench_trainer.store.jsonl import read_rows
from swebench_trainer.training.dpo import train_dpo
from swebench_trainer.training.loop.milestones import steps_of
from swebench_trainer.training.sft import train_sft

SIX = SFT.model_copy(update={"epochs": 6, "batch_size": len(ROWS), "save_every": 2})


def same(left, right) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(left[name], right[name]) for name in left
    )


@pytest.mark.parametrize("table", [LORA, FULL], ids=["lora", "full"])
def test_they_are_the_weights_of_their_steps_after_a_stop_too(tmp_path, table):
    settings = SIX.model_copy(update={"milestones": 3})
    with pytest.raises(KeyboardInterrupt):
        train_sft(table, ROWS, settings, request_in(tmp_path, step=stop_after(5)))
    (at_four,) = (tmp_path / "milestones/4").iterdir()
    kept = tensors(at_four)
    assert same(kept, tensors(tmp_path / "checkpoints/checkpoint-4"))

    weights = train_sft(table, ROWS, settings, request_in(tmp_path))
    rows = read_rows(tmp_path / "milestones.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 6]
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)
    named = [row.get("weights") for row in rows]
    assert named == [f"milestones/{n}/{weights.name}" for n in (2, 4)] + [None]
    assert same(kept, tensors(tmp_path / named[1]))
    assert not same(kept, tensors(tmp_path / named[0]))
    assert not same(kept, tensors(weights))


def test_they_change_nothing_of_what_comes_out(tmp_path):
    plain = train_sft(LORA, ROWS, SIX, request_in(tmp_path / "plain"))
    settings = SIX.model_copy(update={"milestones": 4})
    kept = train_sft(LORA, ROWS, settings, request_in(tmp_path / "kept"))
    assert same(tensors(plain), tensors(kept))


def test_those_of_dpo_have_no_reference_in_them(tmp_path):
    start = train_sft(LORA, ROWS, SFT, request_in(tmp_path / "sft"))
    settings = DPO.model_copy(update={"milestones": 2, "epochs": 4})
    out = tmp_path / "dpo"
    train_dpo(LORA, PAIRS, settings, request_in(out, start=start))
    first, last = read_rows(out / "milestones.jsonl")
    assert last["step"] == 2 * first["step"]
    assert tensors(out / first["weights"]).keys() == tensors(start).keys()


@pytest.mark.parametrize(
    ("number", "total", "steps"),
    [(4, 8, (2, 4, 6, 8)), (3, 10, (3, 7, 10)), (9, 2, (1, 2))],
)
def test_they_are_evenly_spread_and_end_with_the_last_step(number, total, steps):
    assert steps_of(number, total) == steps


@pytest.mark.parametrize(
    "other",
    [{"validation": 0.1}, {"sharding": "fsdp", "processes": 2, "batch_size": 4}],
)
def test_what_they_go_without_is_refused(other):
    with pytest.raises(ValidationError, match="milestones cannot be combined"):
        SftTable(milestones=2, **other)
