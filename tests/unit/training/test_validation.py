"""The released weights are those of the lowest held-out loss, resumed or not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
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
    metrics,
    request_in,
    stop_after,
    tensors,
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
"""Of eight instances, those that the seed holds back: their answers are others, so what
is learned from the rest is soon wrong for them."""

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
FAST = SFT.model_copy(
    update={
        "learning_rate": 2e-2,
        "schedule": "constant",
        "epochs": 4,
        "validation": 0.3,
        "save_every": 2,
    }
)
request_in = partial(request_in, seed=SEED)


def audit_of(out: Path) -> dict:
    return json.loads((out / "audit.json").read_text())["validation"]


def same(left: Path, right: Path) -> bool:
    import torch

    a, b = tensors(left), tensors(right)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rows_of(*keys: str) -> list[Encoded]:
    return [Encoded(key, [1], ([2],)) for key in keys]


def test_instances_are_held_back_whole_and_stay_so_when_rows_are_added():
    names = [f"demo__demo-{n}" for n in range(200)]
    train, held = hold_out(rows_of(*names, *names), 0.2, seed=0)
    kept_back = {row.key for row in held}
    assert len(train) + len(held) == 400
    assert kept_back.isdisjoint(row.key for row in train)
    assert 20 < len(kept_back) < 60
    _, more = hold_out(rows_of(*names, "new-1", "new-2"), 0.2, seed=0)
    assert {row.key for row in more} - {"new-1", "new-2"} == kept_back
    _, larger = hold_out(rows_of(*names), 0.4, seed=0)
    assert kept_back < {row.key for row in larger}
    _, other = hold_out(rows_of(*names), 0.2, seed=1)
    assert {row.key for row in other} != kept_back


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_neither_side_is_empty(share):
    train, held = hold_out(rows_of("a", "b", "c"), share, seed=0)
    assert train
    assert held


def test_nothing_is_held_back_unless_asked_and_nothing_from_one_instance():
    assert hold_out(rows_of("a", "a"), 0, seed=0) == (rows_of("a", "a"), [])
    with pytest.raises(StageError, match="two instances"):
        hold_out(rows_of("a", "a"), 0.5, seed=0)


def test_the_first_of_equal_losses_is_the_best_and_patience_counts_from_it():
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


def test_the_steps_between_evaluations_decide_the_result():
    often, seldom = SftTable(save_every=5), SftTable(save_every=9)
    assert semantic_settings(often) == semantic_settings(seldom)
    judged = [t.model_copy(update={"validation": 0.1}) for t in (often, seldom)]
    assert semantic_settings(judged[0]) != semantic_settings(judged[1])


def test_the_released_weights_are_those_of_the_lowest_held_out_loss(
    tmp_path, tokenizer
):
    import torch

    weights = train_sft(LORA, ROWS, FAST, request_in(tmp_path))
    told = audit_of(tmp_path)
    losses = {r["step"]: r["eval_loss"] for r in metrics(tmp_path) if "eval_loss" in r}
    assert set(losses) == {2, 3, 4, 6, 8, 9, 10, 12}  # three steps are an epoch
    assert told["instances"] == [f"demo__demo-{n}" for n in HELD]
    assert told["kept_step"] == min(losses, key=losses.get) < 12
    assert told["kept_loss"] == losses[told["kept_step"]]
    assert told["evaluations"] == len(losses)
    assert not (tmp_path / "checkpoints").exists()
    with silence_libraries():
        model = load_model(LORA, weights)
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


def test_without_checkpoints_every_epoch_is_evaluated_and_patience_ends_it(tmp_path):
    steps = []
    request = request_in(tmp_path, step=lambda done, *_: steps.append(done))
    settings = FAST.model_copy(update={"save_every": 0, "epochs": 20, "patience": 1})
    train_sft(LORA, ROWS, settings, request)
    told = audit_of(tmp_path)
    assert steps[-1] == told["kept_step"] + 3 < 60
    assert told["why"].endswith(
        f"ended at step {steps[-1]}, 1 evaluations after the best"
    )


def sft_lora(settings, request):
    table = LORA.model_copy(
        update={"lora": LORA.lora.model_copy(update={"dropout": 0.2})}
    )
    return train_sft(table, ROWS, settings, request)


def sft_full(settings, request):
    return train_sft(FULL, ROWS, settings, request)


def dpo_shared(settings, request):
    table = DPO.model_copy(update={"validation": 0.3, "patience": 3, "save_every": 2})
    return train_dpo(LORA, PAIRS, table, request)


@pytest.mark.parametrize("train", [sft_lora, sft_full, dpo_shared])
def test_a_training_killed_twice_keeps_what_an_undisturbed_one_keeps(tmp_path, train):
    straight = train(FAST, request_in(tmp_path / "straight"))
    out = tmp_path / "killed"
    for step in (3, 5):
        with pytest.raises(KeyboardInterrupt):
            train(FAST, request_in(out, step=stop_after(step)))
    resumed = train(FAST, request_in(out))
    assert same(straight, resumed)
    assert metrics(out) == metrics(tmp_path / "straight")
    assert audit_of(out) == audit_of(tmp_path / "straight")


def test_the_best_weights_outlive_the_checkpoints_and_a_late_kill(
    tmp_path, trained, monkeypatch
):
    straight = trained(train_sft, LORA, ROWS, FAST, seed=7)
    told = audit_of(straight.parent)
    out = tmp_path / "killed"

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(saving, "save", interrupt)
        train_sft(LORA, ROWS, FAST, request_in(out))
    left = {path.name for path in (out / "checkpoints").iterdir()}
    assert f"checkpoint-{told['kept_step']}" not in left
    assert {name for name in left if name.startswith("best-")} == {
        f"best-{told['kept_step']}"
    }
    steps = []
    request = request_in(out, step=lambda done, *_: steps.append(done))
    assert same(straight, train_sft(LORA, ROWS, FAST, request))
    assert steps == []


def test_a_training_that_had_stopped_takes_no_step_after_a_kill(tmp_path, monkeypatch):
    settings = FAST.model_copy(update={"patience": 1, "save_every": 3})

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


def test_best_weights_that_are_damaged_are_trained_again(tmp_path, trained):
    straight = trained(train_sft, LORA, ROWS, FAST, seed=7)
    out = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        train_sft(LORA, ROWS, FAST, request_in(out, step=stop_after(7)))
    (best,) = (out / "checkpoints").glob("best-*")
    (best / "weights.safetensors").write_bytes(b"half")
    steps = []
    request = request_in(out, step=lambda done, *_: steps.append(done))
    assert same(straight, train_sft(LORA, ROWS, FAST, request))
    assert steps[0] <= int(best.name.removeprefix("best-"))


def test_a_kill_between_an_evaluation_and_its_checkpoint_changes_nothing(
    tmp_path, trained, monkeypatch
):
    """The newer weights lie there already, and the older ones are still needed."""
    from transformers import Trainer

    straight = trained(train_sft, LORA, ROWS, FAST, seed=7)
    out = tmp_path / "killed"
    save = Trainer._save_checkpoint

    def killed_at_four(self, *args):
        if self.state.global_step == 4:
            raise KeyboardInterrupt
        save(self, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_save_checkpoint", killed_at_four)
        train_sft(LORA, ROWS, FAST, request_in(out))
    names = {path.name for path in (out / "checkpoints").glob("best-*")}
    assert {"best-2", "best-4"} <= names
    assert same(straight, train_sft(LORA, ROWS, FAST, request_in(out)))
    assert metrics(out) == metrics(straight.parent)


@pytest.mark.slow
def test_kill_minus_nine_changes_nothing(tmp_path, trained):
    script = (
        "import os, signal, sys; from pathlib import Path; from test_validation import *\n"
        "def kill(done, *_):\n    if done == 7: os.kill(os.getpid(), signal.SIGKILL)\n"
        "train_sft(LORA, ROWS, FAST, request_in(Path(sys.argv[1]), step=kill))"
    )
    straight = trained(train_sft, LORA, ROWS, FAST, seed=7)
    out = tmp_path / "killed"
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    run = subprocess.run(
        [sys.executable, "-c", script, str(out)], env={**os.environ, "PYTHONPATH": path}
    )
    assert run.returncode == -signal.SIGKILL
    assert same(straight, train_sft(LORA, ROWS, FAST, request_in(out)))
    assert metrics(out) == metrics(straight.parent)
