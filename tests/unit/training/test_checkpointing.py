"""Activation checkpointing: all levels give the same numbers; `auto` takes the cheapest that fits."""

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
def test_the_cheapest_level_that_fits_is_chosen_without_trying_others(limit, level):
    choice = cheapest(NEEDS.__getitem__, limit)
    tried = LEVELS[: LEVELS.index(level) + 1]
    assert (choice.level, choice.fits, choice.limit) == (level, True, limit)
    assert choice.needed == {name: NEEDS[name] for name in tried}


def test_a_trial_that_runs_out_of_memory_is_followed_by_others(limit=70):
    def measure(level):
        return None if level == "none" else NEEDS[level]

    choice = cheapest(measure, limit)
    assert choice.level == "every_2"
    assert choice.needed["none"] is None


def test_if_no_level_fits_the_last_is_chosen_and_marked_as_not_fitting():
    choice = cheapest(lambda _: None, 10)
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
def test_a_level_is_kept_after_a_forward_of_the_reference_without_it(
    tmp_path, level, layers
):
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

    def enabled():
        return [layer.gradient_checkpointing for layer in model.model.layers]

    with silence_libraries():
        apply(model, "full")
        apply(model, level)
        assert enabled() == layers
        with disable_gradient_checkpointing(model, None):
            assert not any(enabled())
    assert enabled() == layers


@pytest.mark.parametrize(
    "level",
    [
        pytest.param("every_4", marks=pytest.mark.slow),
        "every_2",
        pytest.param("full", marks=pytest.mark.slow),
        "offload",
    ],
)
def test_levels_do_not_change_the_steps(tmp_path, level, straight):
    train_sft(at(level), ROWS, SHORT_SFT, request_in(tmp_path / "sft"))
    train_dpo(at(level), PAIRS, SHORT, request_in(tmp_path / "dpo"))
    for stage, expected in straight.items():
        found = metrics(tmp_path / stage)
        audit = json.loads((tmp_path / stage / "audit.json").read_text())
        assert audit["checkpointing"] == level
        assert not (tmp_path / stage / activation_checkpointing.FILE).exists()
        for one, other in zip(found, expected, strict=True):
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
            assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)


SHORT_SFT = SFT.model_copy(update={"epochs": 1})
SHORT = DPO.model_copy(update={"epochs": 1})


@pytest.fixture(scope="module")
def straight(trained):
    """The metrics of trainings that keep all activations."""
    sft = trained(train_sft, at("none"), ROWS, SHORT_SFT)
    dpo = trained(train_dpo, at("none"), PAIRS, SHORT)
    return {"sft": metrics(sft.parent), "dpo": metrics(dpo.parent)}


def test_the_choice_does_not_affect_the_training(tmp_path):
    """Not even its random numbers, which dropout uses."""
    table = LORA.model_copy(
        update={"lora": LORA.lora.model_copy(update={"dropout": 0.2})}
    )
    for level in ("none", "auto"):
        chosen = table.model_copy(update={"checkpointing": level})
        train_sft(chosen, ROWS, SHORT_SFT, request_in(tmp_path / level))
    assert metrics(tmp_path / "auto") == metrics(tmp_path / "none")
    choice = Choice(
        **json.loads((tmp_path / "auto" / activation_checkpointing.FILE).read_text())
    )
    assert (choice.level, choice.fits) == ("none", True)
    assert 0 < choice.needed["none"] < choice.limit


def test_trial_steps_do_not_affect_the_training(tmp_path, monkeypatch):
    """Runs the trial steps of a GPU on a CPU."""

    def tried(trainer, base, batch):
        def measure(level):
            apply(base, level)
            activation_checkpointing._steps(trainer, batch, 2)
            return NEEDS[level]

        return cheapest(measure, 60)

    train_sft(at("every_2"), ROWS, SHORT_SFT, request_in(tmp_path / "set"))
    monkeypatch.setattr(
        activation_checkpointing,
        "_on_cpu",
        lambda t, batch, _: tried(t, t.model.get_base_model(), batch),
    )
    train_sft(at("auto"), ROWS, SHORT_SFT, request_in(tmp_path / "tried"))
    audit = json.loads((tmp_path / "tried" / "audit.json").read_text())
    assert audit["checkpointing"] == "every_2"
    assert metrics(tmp_path / "tried") == metrics(tmp_path / "set")


def test_with_little_memory_all_layers_are_recomputed(tmp_path, monkeypatch):
    monkeypatch.setattr(activation_checkpointing, "free_memory", lambda: 1 << 20)
    train_sft(at("auto"), ROWS, SHORT_SFT, request_in(tmp_path))
    choice = json.loads((tmp_path / activation_checkpointing.FILE).read_text())
    assert choice["level"] == "full"
    assert choice["needed"]["none"] > choice["limit"]


def test_more_tokens_need_more_memory(tmp_path):
    needed = []
    for times in (1, 3):
        rows = [SftRow(r.instance_id, r.prompt * times, r.completion) for r in ROWS]
        out = tmp_path / str(times)
        train_sft(at("auto"), rows, SHORT_SFT, request_in(out))
        needed.append(
            json.loads((out / activation_checkpointing.FILE).read_text())["needed"][
                "none"
            ]
        )
    assert needed[0] < needed[1]


def test_a_resumed_training_keeps_its_level(tmp_path, monkeypatch):
    settings = SHORT_SFT.model_copy(update={"save_every": 1})
    with pytest.raises(KeyboardInterrupt):
        train_sft(at("auto"), ROWS, settings, request_in(tmp_path, step=stop_after(2)))
    before = (tmp_path / activation_checkpointing.FILE).read_text()
    monkeypatch.setattr(activation_checkpointing, "free_memory", lambda: 1 << 20)
    train_sft(at("auto"), ROWS, settings, request_in(tmp_path))
    assert (tmp_path / activation_checkpointing.FILE).read_text() == before


def test_a_resumed_training_with_other_micro_batches_chooses_again(
    tmp_path, monkeypatch
):
    settings = SHORT_SFT.model_copy(update={"save_every": 1})
    with pytest.raises(KeyboardInterrupt):
        train_sft(at("auto"), ROWS, settings, request_in(tmp_path, step=stop_after(2)))
    monkeypatch.setattr(activation_checkpointing, "free_memory", lambda: 1 << 20)
    other = settings.model_copy(update={"micro_batch": 2})
    train_sft(at("auto"), ROWS, other, request_in(tmp_path))
    assert (
        json.loads((tmp_path / activation_checkpointing.FILE).read_text())["level"]
        == "full"
    )


def test_several_processes_get_the_full_level_without_a_trial(tmp_path):
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


def test_free_memory_is_at_most_the_machines_memory():
    import psutil

    assert 0 < activation_checkpointing.free_memory() <= psutil.virtual_memory().total
