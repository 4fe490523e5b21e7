"""The released weights have the lowest held-out loss, resumed or not."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from pydantic import ValidationError
from training_examples import (
    DPO,
    FULL,
    LORA,
    PAIRS,
    SFT,
    die_at,
    dies_in,
    metrics,
    request_in,
    same_weights,
    stop_after,
)

from swebench_trainer.errors import StageError
from swebench_trainer.recipe.models import SftTable, semantic_settings
from swebench_trainer.training.dpo import train_dpo
from swebench_trainer.training.loop.validation import best_of, hold_out, is_over
from swebench_trainer.training.models import saving
from swebench_trainer.training.models.loading import load_model
from swebench_trainer.training.sft import train_sft
from swebench_trainer.training.silence import silence_libraries
from swebench_trainer.training.tokens.encoding import encode_completion, encode_prompt
from swebench_trainer.training.tokens.rows import Encoded
from swebench_trainer.types import SftRow

SEED = 7
HELD = (1, 2)
"""The instances of eight that the seed holds out. Their answers differ from the others,
so the held-out loss soon rises."""

ROWS = tuple(
    SftRow(
        f"demo__demo-{n}",
        f"Fix issue {n}.",
        "demo.py\n-def f(x):\n+def g(y):\n"
        if n in HELD
        else "demo.py\n-value = 1\n+value += 1\n",
    )
    for n in range(8)
)
UP, DOWN = "demo.py\n-value = 1\n+value += 1\n", "demo.py\n-value = 1\n+value -= 1\n"
PAIRS = tuple(
    replace(pair, chosen=DOWN if n in HELD else UP, rejected=UP if n in HELD else DOWN)
    for n, pair in enumerate(
        replace(PAIRS[0], instance_id=row.instance_id, prompt=row.prompt)
        for row in ROWS
    )
)
DROPOUT = LORA.model_copy(
    update={"lora": LORA.lora.model_copy(update={"dropout": 0.2})}
)
FAST = SFT.model_copy(
    update={
        "learning_rate": 4e-2,
        "schedule": "constant",
        "epochs": 3,
        "validation": 0.3,
        "save_every": 2,
    }
)
request_in = partial(request_in, seed=SEED)


def audit_of(out: Path) -> dict:
    return json.loads((out / "audit.json").read_text())["validation"]


def rows_of(*keys: str) -> list[Encoded]:
    return [Encoded(key, [1], ([2],)) for key in keys]


def test_whole_instances_are_held_out_and_stay_so_when_rows_are_added():
    names = [f"demo__demo-{n}" for n in range(200)]
    train, held = hold_out(rows_of(*names, *names), 0.2, seed=0)
    held_keys = {row.key for row in held}
    assert len(train) + len(held) == 400
    assert held_keys.isdisjoint(row.key for row in train)
    assert 20 < len(held_keys) < 60
    _, more = hold_out(rows_of(*names, "new-1", "new-2"), 0.2, seed=0)
    assert {row.key for row in more} - {"new-1", "new-2"} == held_keys
    _, larger = hold_out(rows_of(*names), 0.4, seed=0)
    assert held_keys < {row.key for row in larger}
    _, other = hold_out(rows_of(*names), 0.2, seed=1)
    assert {row.key for row in other} != held_keys


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_each_side_gets_an_instance(share):
    train, held = hold_out(rows_of("a", "b", "c"), share, seed=0)
    assert train
    assert held


def test_by_default_nothing_is_held_out_and_one_instance_is_too_few():
    assert hold_out(rows_of("a", "a"), 0, seed=0) == (rows_of("a", "a"), [])
    with pytest.raises(StageError, match="two instances"):
        hold_out(rows_of("a", "a"), 0.5, seed=0)


def test_the_first_of_equal_losses_is_the_best_and_starts_the_patience():
    rows = [{"step": n, "eval_loss": x} for n, x in enumerate([3.0, 1.0, 1.0, 2.0], 1)]
    best = best_of([{"step": 1, "loss": 0.1}, *rows])
    assert best
    assert (best.step, best.loss, best.since) == (2, 1.0, 2)
    assert is_over(rows, SftTable(validation=0.1, patience=2))
    assert not is_over(rows, SftTable(validation=0.1, patience=3))
    assert not is_over(rows, SftTable(validation=0.1))


def test_patience_needs_a_held_out_loss():
    with pytest.raises(ValidationError, match="set validation"):
        SftTable(patience=2)


def test_the_steps_between_evaluations_are_in_fingerprints():
    often, seldom = SftTable(save_every=5), SftTable(save_every=9)
    assert semantic_settings(often) == semantic_settings(seldom)
    evaluated = [t.model_copy(update={"validation": 0.1}) for t in (often, seldom)]
    assert semantic_settings(evaluated[0]) != semantic_settings(evaluated[1])


def test_the_released_weights_have_the_lowest_held_out_loss(trained, tokenizer):
    import torch

    weights = trained(train_sft, DROPOUT, ROWS, FAST, seed=SEED)
    out = weights.parent
    told = audit_of(out)
    losses = {r["step"]: r["eval_loss"] for r in metrics(out) if "eval_loss" in r}
    assert set(losses) == {2, 3, 4, 6, 8, 9}  # an epoch has three steps
    assert told["instances"] == [f"demo__demo-{n}" for n in HELD]
    assert told["kept_step"] == min(losses, key=losses.get) < 9
    assert told["kept_loss"] == losses[told["kept_step"]]
    assert told["evaluations"] == len(losses)
    assert not (out / "checkpoints").exists()
    with silence_libraries():
        model = load_model(DROPOUT, weights)
    found = []
    for row in ROWS:
        if row.instance_id in told["instances"]:
            prompt = encode_prompt(tokenizer, row.prompt)
            answer = encode_completion(tokenizer, row.completion)
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([prompt + answer])).logits[0]
            logps = logits[len(prompt) - 1 : -1].log_softmax(-1)
            found.append(-float(logps.gather(1, torch.tensor(answer)[:, None]).mean()))
    assert sum(found) / len(found) == pytest.approx(told["kept_loss"], abs=1e-4)


def test_without_checkpoints_every_epoch_is_evaluated_and_patience_ends_the_training(
    tmp_path,
):
    steps = []
    request = request_in(tmp_path, step=lambda done, *_: steps.append(done))
    settings = FAST.model_copy(update={"save_every": 0, "epochs": 20, "patience": 1})
    train_sft(LORA, ROWS, settings, request)
    told = audit_of(tmp_path)
    assert steps[-1] == told["kept_step"] + 3 < 60
    assert told["why"].endswith(
        f"ended at step {steps[-1]}, 1 evaluations after the best"
    )


FAST_DPO = DPO.model_copy(
    update={"validation": 0.3, "patience": 3, "save_every": 2, "epochs": 3}
)


@pytest.mark.parametrize(
    ("train", "table", "rows", "settings"),
    [
        (train_sft, DROPOUT, ROWS, FAST),
        pytest.param(train_sft, FULL, ROWS, FAST, marks=pytest.mark.slow),
        (train_dpo, LORA, PAIRS, FAST_DPO),
    ],
    ids=["sft lora", "sft full", "dpo"],
)
def test_a_training_killed_twice_keeps_the_same_weights(
    tmp_path, trained, train, table, rows, settings
):
    straight = trained(train, table, rows, settings, seed=SEED)
    for step in (3, 5):
        with pytest.raises(KeyboardInterrupt):
            train(table, rows, settings, request_in(tmp_path, step=stop_after(step)))
    assert same_weights(straight, train(table, rows, settings, request_in(tmp_path)))
    assert metrics(tmp_path) == metrics(straight.parent)
    assert audit_of(tmp_path) == audit_of(straight.parent)


def test_the_best_weights_outlive_the_checkpoints_and_a_late_kill(
    tmp_path, trained, monkeypatch
):
    straight = trained(train_sft, DROPOUT, ROWS, FAST, seed=SEED)
    told = audit_of(straight.parent)
    out = tmp_path / "killed"

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(saving, "save", interrupt)
        train_sft(DROPOUT, ROWS, FAST, request_in(out))
    left = {path.name for path in (out / "checkpoints").iterdir()}
    assert f"checkpoint-{told['kept_step']}" not in left
    assert {name for name in left if name.startswith("best-")} == {
        f"best-{told['kept_step']}"
    }
    steps = []
    request = request_in(out, step=lambda done, *_: steps.append(done))
    assert same_weights(straight, train_sft(DROPOUT, ROWS, FAST, request))
    assert steps == []


def test_a_training_out_of_patience_takes_no_step_after_a_kill(tmp_path, monkeypatch):
    changes = {"learning_rate": 2e-2, "epochs": 4, "patience": 1, "save_every": 3}
    settings = FAST.model_copy(update=changes)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(saving, "save", interrupt)
        train_sft(LORA, ROWS, settings, request_in(tmp_path))
    before = metrics(tmp_path)
    steps = []
    request = request_in(tmp_path, step=lambda done, *_: steps.append(done))
    train_sft(LORA, ROWS, settings, request)
    assert steps == []
    assert metrics(tmp_path) == before
    assert audit_of(tmp_path)["kept_step"] == before[-1]["step"] - 3


def test_damaged_best_weights_are_trained_again(tmp_path, trained):
    straight = trained(train_sft, DROPOUT, ROWS, FAST, seed=SEED)
    out = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        train_sft(DROPOUT, ROWS, FAST, request_in(out, step=stop_after(7)))
    (best,) = (out / "checkpoints").glob("best-*")
    (best / "weights.safetensors").write_bytes(b"half")
    steps = []
    request = request_in(out, step=lambda done, *_: steps.append(done))
    assert same_weights(straight, train_sft(DROPOUT, ROWS, FAST, request))
    assert steps[0] <= int(best.name.removeprefix("best-"))


def test_a_kill_between_an_evaluation_and_its_checkpoint_changes_nothing(
    tmp_path, trained, monkeypatch
):
    """The newer best weights exist already, and the older ones are still needed."""
    from transformers import Trainer

    straight = trained(train_sft, DROPOUT, ROWS, FAST, seed=SEED)
    out = tmp_path / "killed"
    save = Trainer._save_checkpoint

    def killed_at_four(self, *args):
        if self.state.global_step == 4:
            raise KeyboardInterrupt
        save(self, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_save_checkpoint", killed_at_four)
        train_sft(DROPOUT, ROWS, FAST, request_in(out))
    names = {path.name for path in (out / "checkpoints").glob("best-*")}
    assert {"best-2", "best-4"} <= names
    assert same_weights(straight, train_sft(DROPOUT, ROWS, FAST, request_in(out)))
    assert metrics(out) == metrics(straight.parent)


@pytest.mark.slow
def test_a_training_killed_by_a_signal_keeps_the_same_weights(tmp_path, trained):
    straight = trained(train_sft, DROPOUT, ROWS, FAST, seed=SEED)
    out = tmp_path / "killed"
    dies_in(lambda: train_sft(DROPOUT, ROWS, FAST, request_in(out, step=die_at(7))))
    assert same_weights(straight, train_sft(DROPOUT, ROWS, FAST, request_in(out)))
    assert metrics(out) == metrics(straight.parent)
