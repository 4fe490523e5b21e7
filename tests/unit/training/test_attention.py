"""The attention that `auto` chooses, on any machine."""

from __future__ import annotations

import json

import pytest
from training_examples import LORA

from swebench_trainer.training.models import attention
from swebench_trainer.training.models.attention import KERNEL, obstacle, settled


def unreachable():
    raise OSError("no route to host")


def unwanted():
    raise AssertionError("loaded a kernel that could not run")


@pytest.mark.parametrize(
    ("generation", "installed", "load", "reason"),
    [
        (0, True, unwanted, "no GPU"),
        (7, True, unwanted, "older than Ampere"),
        (9, False, unwanted, "kernels is not installed"),
        (9, True, unreachable, "cannot be loaded"),
        (8, True, lambda: None, None),
    ],
)
def test_the_kernel_needs_a_gpu_and_a_package_and_must_load(
    generation, installed, load, reason
):
    found = obstacle(generation, installed, load)
    assert found is None if reason is None else reason in found


@pytest.mark.parametrize(
    ("wanted", "masked", "obstacle_here", "means"),
    [
        ("auto", False, None, KERNEL),
        ("auto", True, None, "auto"),
        ("auto", False, "no GPU", "auto"),
        ("eager", False, None, "eager"),
    ],
)
def test_auto_is_the_kernel_if_it_runs_and_no_mask_is_needed(
    monkeypatch, wanted, masked, obstacle_here, means
):
    monkeypatch.setattr(attention, "kernel_obstacle", lambda: obstacle_here)
    table = LORA.model_copy(update={"attention": wanted})
    assert settled(table, masked=masked).attention == means


def test_a_machine_without_a_gpu_trains_with_sdpa_and_records_it(
    sft_adapter, dpo_adapter
):
    assert attention.kernel_obstacle() == "no GPU"
    for weights in (sft_adapter, dpo_adapter):
        audit = json.loads((weights.parent / "audit.json").read_text())
        assert audit["attention"] == "sdpa"


def test_transformers_recognizes_the_name_of_the_kernel():
    from transformers.integrations.hub_kernels import is_kernel
    from transformers.modeling_flash_attention_utils import FLASH_ATTN_KERNEL_DEVICES

    assert is_kernel(KERNEL)
    assert "cuda" in FLASH_ATTN_KERNEL_DEVICES[KERNEL]
