"""Parts of a step: any split takes the same steps."""

from __future__ import annotations

import json
from functools import partial
from itertools import combinations, pairwise

import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError
from training_examples import (
    DPO,
    LORA,
    PAIRS,
    SFT,
    metrics,
    request_in,
    stop_after,
)

from swebench_trainer.recipe.models import DpoTable, semantic_settings
from swebench_trainer.training.batching import microbatches
from swebench_trainer.training.batching.microbatches import Layout, packed, padded
from swebench_trainer.training.batching.samplers import EpochSampler, by_length
from swebench_trainer.training.dpo import train_dpo
from swebench_trainer.training.loop.training import Training
from swebench_trainer.training.sft import train_sft
from swebench_trainer.types import SftRow

ROOM = 20
lengths = st.lists(st.integers(1, 25), min_size=1, max_size=30)
RAGGED = tuple(
    SftRow(f"demo__demo-{n}", "Fix it. " * (1 + n * n), f"value += {n}\n" * (1 + n % 3))
    for n in range(7)
)


def padded_size(part):
    return len(part) * max(part)


@pytest.mark.parametrize(("place", "size"), [(packed, sum), (padded, padded_size)])
@given(lengths=lengths)
def test_each_row_is_in_one_part_and_parts_fit(place, size, lengths):
    parts = place(lengths, ROOM)
    assert sorted(n for part in parts for n in part) == list(range(len(lengths)))
    for part in parts:
        assert len(part) == 1 or size([lengths[n] for n in part]) <= ROOM


@given(lengths)
def test_no_two_packed_parts_fit_into_one(lengths):
    sizes = [sum(lengths[n] for n in part) for part in packed(lengths, ROOM)]
    assert all(one + other > ROOM for one, other in combinations(sizes, 2))


def test_a_sequence_is_packed_where_it_leaves_the_least_room():
    assert packed([12, 15, 5, 8], ROOM) == [[1, 2], [0, 3]]


def test_rows_of_similar_length_are_padded_together():
    assert padded([3, 10, 4, 9], ROOM) == [[1, 3], [2, 0]]


COMPARED = ("loss", "grad_norm", "rewards/margins")


def steps(out):
    return [{k: row[k] for k in COMPARED if k in row} for row in metrics(out)]


def test_sft_takes_the_same_steps_split_by_tokens_or_by_rows(tmp_path, monkeypatch):
    shapes, whole = [], Layout.parts

    def parts(self, rows, collate):
        step = whole(self, rows, collate)
        shapes.append([tuple(part["input_ids"].shape) for part in step["parts"]])
        return step

    monkeypatch.setattr(Layout, "parts", parts)
    keeping = LORA.model_copy(update={"checkpointing": "none"})  # no trial steps
    for tokens in (None, 120):
        changes = {"batch_size": 7, "packing": False, "micro_tokens": tokens}
        out = tmp_path / str(tokens)
        train_sft(keeping, RAGGED, SFT.model_copy(update=changes), request_in(out))
    assert len(shapes) == 3
    assert all(1 < len(step) < 7 for step in shapes)
    assert all(a == 1 or a * b <= 120 for step in shapes for a, b in step)
    for found, expected in zip(
        steps(tmp_path / "120"), steps(tmp_path / "None"), strict=True
    ):
        assert found == pytest.approx(expected, rel=1e-3)


def test_a_dropped_row_does_not_enlarge_the_parts(tmp_path, monkeypatch):
    rooms, parts = [], Layout.parts

    def noted(self, rows, collate):
        rooms.append(self.room)
        return parts(self, rows, collate)

    monkeypatch.setattr(Layout, "parts", noted)
    settings = SFT.model_copy(update={"epochs": 1, "micro_batch": 2})
    train_sft(LORA, RAGGED, settings, request_in(tmp_path, max_tokens=150))
    audit = json.loads((tmp_path / "audit.json").read_text())
    assert set(rooms) == {2 * audit["longest_kept"]}
    assert audit["longest_kept"] <= 150 < audit["longest"]


@pytest.mark.parametrize("shared", [False, True])
def test_dpo_takes_the_same_steps_split_by_tokens_or_by_rows(tmp_path, shared):
    for tokens in (None, 130):
        changes = {"batch_size": 4, "shared_prefix": shared, "micro_tokens": tokens}
        settings = DPO.model_copy(update={**changes, "epochs": 2})
        out = tmp_path / str(tokens)
        train_dpo(LORA, PAIRS, settings, request_in(out))
    for found, expected in zip(
        steps(tmp_path / "130"), steps(tmp_path / "None"), strict=True
    ):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_a_process_with_fewer_parts_than_another_takes_the_same_steps(
    tmp_path, monkeypatch
):
    """It repeats parts at weight 0, because the others wait for it at each part."""
    settings = SFT.model_copy(update={"batch_size": 4, "epochs": 1})
    train_sft(LORA, RAGGED, settings, request_in(tmp_path / "alone"))
    monkeypatch.setattr(microbatches, "_most_parts", lambda _, mine: mine + 2)
    train_sft(LORA, RAGGED, settings, request_in(tmp_path / "waiting"))
    for found, expected in zip(
        steps(tmp_path / "waiting"), steps(tmp_path / "alone"), strict=True
    ):
        assert found == pytest.approx(expected, rel=1e-4)


def length_sampler(lengths, seed):
    return EpochSampler(len(lengths), seed, partial(by_length, lengths, 4))


@given(st.lists(st.integers(1, 99), min_size=1, max_size=70), st.integers(0, 9))
def test_rows_of_similar_length_share_a_step(lengths, epoch):
    sampler = length_sampler(lengths, seed=0)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert sorted(order) == list(range(len(lengths)))
    assert list(sampler) == order
    if len(lengths) <= 64:  # all are sorted together
        steps = [order[at : at + 4] for at in range(0, len(order), 4)]
        spans = sorted(
            (min(x), max(x)) for x in ([lengths[n] for n in s] for s in steps)
        )
        assert all(one[1] <= other[0] for one, other in pairwise(spans))


def test_the_order_depends_on_the_epoch_and_the_seed():
    sampler = length_sampler(range(40), seed=0)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(length_sampler(range(40), seed=1)) != first


def test_a_training_grouped_by_length_takes_every_row(tmp_path):
    changes = {"group_by_length": True, "packing": False, "epochs": 1}
    settings = SFT.model_copy(update=changes)
    train_sft(LORA, RAGGED, settings, request_in(tmp_path))
    assert len(metrics(tmp_path)) == 4


def test_grouping_by_prompt_and_by_length_exclude_each_other():
    with pytest.raises(ValidationError, match="exclude each other"):
        DpoTable(group_by_prompt=True, group_by_length=True)


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({"packing": False}, False),
        ({"micro_tokens": 4096}, False),
        ({"group_by_length": True}, True),
    ],
)
def test_only_keys_that_change_the_steps_are_in_fingerprints(change, counts):
    changed = SFT.model_copy(update=change)
    assert (semantic_settings(changed) != semantic_settings(SFT)) is counts


def test_a_killed_training_can_be_resumed_with_other_micro_batches(tmp_path):
    changes = {"batch_size": 4, "save_every": 2, "epochs": 2}
    packs = SFT.model_copy(update=changes)
    pads = packs.model_copy(update={"packing": False, "micro_batch": 2})
    train_sft(LORA, RAGGED, packs, request_in(tmp_path / "straight"))
    for first, then in ((packs, pads), (pads, packs)):
        out = tmp_path / str(first.packing)
        with pytest.raises(KeyboardInterrupt):
            train_sft(LORA, RAGGED, first, request_in(out, step=stop_after(3)))
        train_sft(LORA, RAGGED, then, request_in(out))
        for found, expected in zip(
            steps(out), steps(tmp_path / "straight"), strict=True
        ):
            assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_the_held_out_loss_does_not_depend_on_micro_batches(
    tmp_path, monkeypatch, stage
):
    """Evaluation pads rows, has no parts, and returns outputs besides the loss."""
    found = {}

    def evaluate(_training, trainer, *_):
        found.update(trainer.evaluate(trainer.train_dataset))
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "fit", evaluate)
    settings = {"micro_tokens": 130, "batch_size": 4}
    losses = []
    for update in (settings, {"packing": False}):
        with pytest.raises(KeyboardInterrupt):
            if stage == "sft":
                changed = SFT.model_copy(update=update)
                train_sft(LORA, RAGGED, changed, request_in(tmp_path))
            else:
                changed = DPO.model_copy(update=update)
                train_dpo(LORA, PAIRS, changed, request_in(tmp_path))
        losses.append(found["eval_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
