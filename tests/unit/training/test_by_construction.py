"""Properties of every training: fp32 weights, and bits that the seed determines."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_examples import (
    DPO,
    LORA,
    PAIRS,
    QLORA,
    ROWS,
    SFT,
    request_in,
    same_weights,
    stop_after,
    tensors,
)

from swebench_trainer.training.dpo import train_dpo
from swebench_trainer.training.loop.training import Training
from swebench_trainer.training.models.loading import compute_dtype
from swebench_trainer.training.sft import train_sft

EACH_STEP = SFT.model_copy(update={"save_every": 1})


@pytest.mark.parametrize("gpu", [False, True])
def test_a_gpu_computes_in_bf16_and_a_cpu_in_fp32(monkeypatch, tmp_path, gpu):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    arguments = Training(
        LORA, SFT, request_in(tmp_path), None, [None] * 4, [], {}
    ).arguments()
    assert compute_dtype() == (torch.bfloat16 if gpu else torch.float32)
    assert arguments["bf16"] is gpu
    assert arguments["use_cpu"] is not gpu


def dtypes(checkpoint: Path) -> set[str]:
    """The precisions of the adapter and of the optimizer's state."""
    import torch

    optimizer = torch.load(checkpoint / "optimizer.pt")["state"].values()
    remembered = [
        state[key] for state in optimizer for key in ("exp_avg", "exp_avg_sq")
    ]
    assert remembered
    adapter = tensors(checkpoint).values()
    return {str(tensor.dtype) for tensor in (*remembered, *adapter)}


def test_adapters_and_optimizer_are_fp32_before_and_after_a_resume(
    tmp_path, qlora_adapter
):
    """TRL keeps adapters of a 4-bit model in bf16, and peft loads them in fp32."""
    out = tmp_path / "stopped"
    for steps in (3, 5):
        with pytest.raises(KeyboardInterrupt):
            request = request_in(out, step=stop_after(steps))
            train_sft(QLORA, ROWS, EACH_STEP, request)
        newest = out / "checkpoints" / f"checkpoint-{steps - 1}"
        assert dtypes(newest) == {"torch.float32"}
    resumed = train_sft(QLORA, ROWS, EACH_STEP, request_in(out))
    assert same_weights(qlora_adapter, resumed)


@pytest.mark.parametrize(
    "table",
    [LORA, pytest.param(QLORA, marks=pytest.mark.slow)],
    ids=["lora", "qlora"],
)
def test_the_seed_determines_the_bits_of_dpo(tmp_path, sft_adapter, table):
    runs = [
        train_dpo(
            table,
            PAIRS,
            DPO.model_copy(update={"epochs": 1}),
            request_in(tmp_path / name, start=sft_adapter, seed=seed),
        )
        for name, seed in (("one", 1), ("again", 1), ("two", 2))
    ]
    assert same_weights(runs[0], runs[1])
    assert not same_weights(runs[0], runs[2])
