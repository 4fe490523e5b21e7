"""Packed rows give the same numbers as separate rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_models import PAD, open_model, write_model
from training_examples import FULL, LORA, QLORA, SFT, metrics, request_in

from swebench_trainer.training.batching import packing
from swebench_trainer.training.batching.shared_prefix import FAMILIES
from swebench_trainer.training.models.table import HfTable
from swebench_trainer.training.sft import train_sft
from swebench_trainer.training.tokens.rows import Encoded
from swebench_trainer.types import SftRow

ROWS = [
    Encoded("a", list(range(10, 30)), ([3, 4, 5, 6, 1],)).as_sft(),
    Encoded("b", [40], ([7, 1],)).as_sft(),
    Encoded("c", list(range(50, 57)), ([8, 9, 8, 9, 8, 9, 1],)).as_sft(),
]
RAGGED = tuple(
    SftRow(f"demo__demo-{n}", "Fix it. " * (1 + n * n), f"value += {n}\n" * (1 + n % 3))
    for n in range(7)
)


def batch_of(rows, model):
    """The batch as the trainer passes it to the model."""
    batch = packing.collator(model)(rows)
    return batch | {"fused_lm_head": True, "use_cache": False}


def measure(model, batches):
    """Log-probabilities of the answers, and the gradients of their sum."""
    import torch

    found = []
    model.zero_grad()
    for batch in batches:
        output = model(**batch)
        output.log_probs.sum().backward()
        found.append(output.log_probs[output.label_mask].detach())
    gradients = {
        name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad
    }
    return torch.cat(found), gradients


CASES = [
    *((family, "lora", False) for family in FAMILIES),
    *(
        (family, kind, checkpointing)
        for family in ("qwen2", "llama")
        for kind in ("lora", "nf4", "full")
        for checkpointing in (False, True)
        if (kind, checkpointing) != ("lora", False)
    ),
]


@pytest.mark.parametrize(("family", "kind", "checkpointing"), CASES)
def test_log_probabilities_and_gradients_equal_those_of_separate_rows(
    tmp_path, family, kind, checkpointing
):
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    table = HfTable(
        name=write_model(family, tmp_path),
        quantization="nf4" if kind == "nf4" else "none",
        lora=False if kind == "full" else {"rank": 4, "alpha": 8},
    )
    model, base = open_model(table, checkpointing=checkpointing)
    plain = DataCollatorForLanguageModeling(PAD)
    options = {"fused_lm_head": True, "use_cache": False}
    expected, gradients = measure(model, [plain([row]) | options for row in ROWS])
    together, _ = measure(model, [plain(ROWS) | options])
    assert packing.obstacle(base) is None
    packing.attend_by_sequence(base)
    found, shared = measure(model, [batch_of(ROWS, base)])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert all(gradient.any() for gradient in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(shared[name], gradient, atol=1e-5, rtol=1e-5)
    again, _ = measure(model, [plain(ROWS) | options])  # padded, like an evaluation
    torch.testing.assert_close(again, together, atol=1e-5, rtol=0)


def test_a_row_does_not_see_the_previous_row(tmp_path):
    import torch

    table = HfTable(
        name=write_model("qwen2", tmp_path), quantization="none", lora=False
    )
    model, base = open_model(table, checkpointing=False)
    packing.attend_by_sequence(base)
    found = []
    for first in (ROWS[0], Encoded("x", list(range(60, 80)), ([9] * 5,)).as_sft()):
        output = model(**batch_of([first, *ROWS[1:]], base))
        found.append(output.log_probs[:, len(first["input_ids"]) :])
    assert torch.equal(*found)


def test_flash_attention_gets_the_same_batch_as_from_trl(tmp_path):
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    found = packing._collate(ROWS, flash=True)
    expected = DataCollatorForLanguageModeling(PAD, padding_free=True)(ROWS)
    assert expected.keys() - found.keys() == {"seq_idx"}  # for linear attention
    for name, value in found.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(expected[name]))


@pytest.mark.parametrize(
    ("table", "prompts"),
    [
        pytest.param(LORA, 0, id="lora"),
        pytest.param(QLORA, 0, id="nf4", marks=pytest.mark.slow),
        pytest.param(FULL, 0, id="full"),
        pytest.param(FULL, 1, id="full, prompts weigh 1"),
        pytest.param(FULL, 0.2, id="full, prompts weigh 0.2"),
    ],
)
def test_a_training_takes_the_steps_of_padded_rows(tmp_path, table, prompts):
    """Each token of a step has the same weight, whichever part it is in."""
    rows = {}
    for packed in (False, True):
        settings = SFT.model_copy(
            update={
                "batch_size": 4,
                "epochs": 2,
                "packing": packed,
                "prompt_loss": prompts,
                "learning_rate": 1e-3,
            }
        )
        out = tmp_path / str(packed)
        train_sft(table, RAGGED, settings, request_in(out))
        assert json.loads((out / "audit.json").read_text())["packed"] is packed
        rows[packed] = metrics(out)
    assert len(rows[True]) == len(rows[False]) == 4
    for found, expected in zip(rows[True], rows[False], strict=True):
        for name in ("loss", "grad_norm", "learning_rate"):
            assert found[name] == pytest.approx(expected[name], rel=1e-3)
    assert rows[True][-1]["loss"] < rows[True][0]["loss"]


def test_a_model_that_cannot_pack_rows_is_padded_with_the_reason(tmp_path):
    eager = LORA.model_copy(update={"attention": "eager"})
    settings = SFT.model_copy(update={"epochs": 1})
    train_sft(eager, RAGGED, settings, request_in(tmp_path))
    audit = json.loads((tmp_path / "audit.json").read_text())
    assert audit["packed"] is False
    assert audit["padded_because"] == "eager is neither sdpa nor flash attention"


def test_an_unsupported_model_gives_the_reason():
    from transformers import AutoConfig, AutoModelForCausalLM

    def reason(family, **settings):
        config = AutoConfig.for_model(
            family,
            vocab_size=32,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=16,
            **settings,
        )
        return packing.obstacle(AutoModelForCausalLM.from_config(config))

    assert reason("qwen2") is None
    assert "gemma" in reason("gemma")
    assert "window" in reason("mistral", sliding_window=8)


def test_a_saved_model_does_not_name_our_attention(sft_model):
    assert json.loads((sft_model.parent / "audit.json").read_text())["packed"]
    assert packing.ATTENTION not in (sft_model / "config.json").read_text()


@pytest.mark.slow  # three processes that each import torch
def test_two_processes_with_unequal_parts_take_the_steps_of_one():
    script = str(Path(__file__).with_name("packed_steps.py"))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

    def run(*command):
        done = subprocess.run(
            [sys.executable, *command, script],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        return [json.loads(line) for line in lines]

    (alone,), both = run(), run(*torchrun)
    assert len(both) == 2
    assert both[0]["parts"] != both[1]["parts"]
    for name in ("loss", "grad_norm"):
        for process in both:
            assert process[name] == pytest.approx(alone[name], rel=1e-4)
