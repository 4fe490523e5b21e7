"""Levels of activation checkpointing: the same numbers, and the cheapest that fits."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from training_examples import (
    DPO,
    LORA,
    PAIRS,
    ROWS,
    SFT,
    metrics,
    request_in,
    stop_after,
)

from swebench_trainer.training.dpo import train_dpo
from swebench_trainer.training.loop import activation_checkpointing
from swebench_trainer.training.loop.activation_checkpointing import (
    LEVELS,
    Choice,
    apply,
    cheapest,
)
from swebench_trainer.training.sft import train_sft
from swebench_trainer.types import SftRow

NEEDS = {"none": 100, "every_4": 80, "every_2": 60, "full": 30, "offload": 20}


def at(level):
    return LORA.model_copy(update={"checkpointing": level})


@pytest.mark.parametrize(
    ("limit", "level"),
    [(100, "none"), (99, "every_4"), (60, "every_2"), (31, "full"), (20, "offload")],
)
def test_the_cheapest_level_that_fits_is_chosen_and_nothing_beyond_it_tried(
    limit, level
):
    choice = cheapest(LEVELS, NEEDS.__getitem__, limit)
    tried = LEVELS[: LEVELS.index(level) + 1]
    assert (choice.level, choice.fits, choice.limit) == (level, True, limit)
    assert choice.needed == {name: NEEDS[name] for name in tried}


def test_a_trial_that_runs_out_of_memory_is_not_the_last(limit=70):
    def measure(level):
        return None if level == "none" else NEEDS[level]

    choice = cheapest(LEVELS, measure, limit)
    assert choice.level == "every_2"
    assert choice.needed["none"] is None


def test_where_nothing_fits_the_least_is_taken_and_said_not_to_fit():
    choice = cheapest(LEVELS, lambda _: None, 10)
    assert (choice.level, choice.fits) == ("offload", False)


@pytest.mark.parametrize(
    ("level", "layers"),
    [
        ("none", [False] * 8),
        ("every_4", [True, False, False, False] * 2),
        ("every_2", [True, False] * 4),
        ("full", [True] * 8),
        ("offload", [True] * 8),
    ],
)
def test_a_level_stays_when_the_reference_is_read_without_it(tmp_path, level, layers):
    from transformers import AutoConfig, AutoModelForCausalLM
    from trl.models.utils import disable_gradient_checkpointing

    from swebench_trainer.training.silence import silence_libraries

    config = AutoConfig.for_model(
        "qwen2",
        vocab_size=32,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=8,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    model = AutoModelForCausalLM.from_config(config)

    def switched():
        return [layer.gradient_checkpointing for layer in model.model.layers]

    with silence_libraries():
        apply(model, "full")
        apply(model, level)
        assert switched() == layers
        with disable_gradient_checkpointing(model, None):
            assert not any(switched())
    assert switched() == layers


@pytest.mark.parametrize("level", LEVELS[1:])
def test_levels_do_not_change_what_is_learned(tmp_path, level, straight):
    train_sft(at(level), ROWS, SFT, request_in(tmp_path / "sft"))
    train_dpo(at(level), PAIRS, SHORT, request_in(tmp_path / "dpo"))
    for stage, expected in straight.items():
        found = metrics(tmp_path / stage)
        audit = json.loads((tmp_path / stage / "audit.json").read_text())
        assert audit["checkpointing"] == level
        assert not (tmp_path / stage / activation_checkpointing.FILE).exists()
        for one, other in zip(found, expected, strict=True):
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
            assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)


SHORT = DPO.model_copy(update={"epochs": 1})


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The metrics of trainings that keep all activations."""
    folder = tmp_path_factory.mktemp("straight")
    train_sft(at("none"), ROWS, SFT, request_in(folder / "sft"))
    train_dpo(at("none"), PAIRS, SHORT, request_in(folder / "dpo"))
    return {stage: metrics(folder / stage) for stage in ("sft", "dpo")}


def test_the_choice_leaves_no_trace_in_the_training(tmp_path, straight):
    """Not even in its random numbers: dropout falls as it would have."""
    table = LORA.model_copy(
        update={"lora": LORA.lora.model_copy(update={"dropout": 0.2})}
    )
    for level in ("none", "auto"):
        chosen = table.model_copy(update={"checkpointing": level})
        train_sft(chosen, ROWS, SFT, request_in(tmp_path / level))
    assert metrics(tmp_path / "auto") == metrics(tmp_path / "none")
    choice = Choice(
        **json.loads((tmp_path / "auto" / activation_checkpointing.FILE).read_text())
    )
    assert (choice.level, choice.fits) == ("none", True)
    assert 0 < choice.needed["none"] < choice.limit


def test_trial_steps_leave_no_trace_either(tmp_path, monkeypatch):
    """What a GPU is tried with, run where there is none."""

    def tried(trainer, base, batch):
        def measure(level):
            apply(base, level)
            activation_checkpointing._steps(trainer, batch, 2)
            return NEEDS[level]

        return cheapest(LEVELS, measure, 60)

    train_sft(at("every_2"), ROWS, SFT, request_in(tmp_path / "told"))
    monkeypatch.setattr(
        activation_checkpointing,
        "_on_cpu",
        lambda t, batch, _: tried(t, t.model.get_base_model(), batch),
    )
    train_sft(at("auto"), ROWS, SFT, request_in(tmp_path / "tried"))
    audit = json.loads((tmp_path / "tried" / "audit.json").read_text())
    assert audit["checkpointing"] == "every_2"
    assert metrics(tmp_path / "tried") == metrics(tmp_path / "told")


def test_little_memory_means_that_all_is_computed_again(tmp_path, monkeypatch):
    monkeypatch.setattr(activation_checkpointing, "free_memory", lambda: 1 << 20)
    train_sft(at("auto"), ROWS, SFT, request_in(tmp_path))
    choice = json.loads((tmp_path / activation_checkpointing.FILE).read_text())
    assert choice["level"] == "full"
    assert choice["needed"]["none"] > choice["limit"]


def test_more_tokens_keep_more(tmp_path, monkeypatch):
    needed = []
    for times in (1, 3):
        rows = [SftRow(r.instance_id, r.prompt * times, r.completion) for r in ROWS]
        out = tmp_path / str(times)
        train_sft(at("auto"), rows, SFT, request_in(out))
        needed.append(
            json.loads((out / activation_checkpointing.FILE).read_text())["needed"][
                "none"
            ]
        )
    assert needed[0] < needed[1]


def test_a_resumed_training_keeps_its_level(tmp_path, monkeypatch):
    settings = SFT.model_copy(update={"save_every": 2})
    with pytest.raises(KeyboardInterrupt):
        train_sft(at("auto"), ROWS, settings, request_in(tmp_path, step=stop_after(3)))
    before = (tmp_path / activation_checkpointing.FILE).read_text()
    monkeypatch.setattr(activation_checkpointing, "free_memory", lambda: 1 << 20)
    train_sft(at("auto"), ROWS, settings, request_in(tmp_path))
    assert (tmp_path / activation_checkpointing.FILE).read_text() == before


def test_a_resumed_training_with_other_micro_batches_chooses_anew(
    tmp_path, monkeypatch
):
    settings = SFT.model_copy(update={"save_every": 2})
    with pytest.raises(KeyboardInterrupt):
        train_sft(at("auto"), ROWS, settings, request_in(tmp_path, step=stop_after(3)))
    monkeypatch.setattr(activation_checkpointing, "free_memory", lambda: 1 << 20)
    other = settings.model_copy(update={"micro_batch": 2})
    train_sft(at("auto"), ROWS, other, request_in(tmp_path))
    assert (
        json.loads((tmp_path / activation_checkpointing.FILE).read_text())["level"]
        == "full"
    )


def test_several_processes_are_not_tried(tmp_path):
    import torch

    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(num_processes=2),
        model=torch.nn.Linear(1, 1),
        train_dataset=[{"input_ids": [1, 2]}],
        args=SimpleNamespace(per_device_train_batch_size=1),
        get_train_dataloader=lambda: SimpleNamespace(
            collate_fn=lambda rows: {"input_ids": torch.tensor([rows[0]["input_ids"]])}
        ),
        _metrics={"train": {}},
    )
    choice = activation_checkpointing._choose(trainer, None, tmp_path)
    assert (choice.level, choice.reason) == ("full", "several processes")


def test_a_choice_counts_the_memory_that_is_free():
    import psutil

    assert 0 < activation_checkpointing.free_memory() <= psutil.virtual_memory().total
