"""The attention implementation of a training whose recipe has `attention = "auto"`.

The Hub's flash attention kernel reads packed rows as one. It does not accept custom
masks, so DPO with shared prompts uses SDPA, and so does every machine without a GPU
that the kernel supports.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from swebench_trainer.training.models.table import HfTable

KERNEL = "kernels-community/flash-attn2"
"""Name of the kernel in transformers, which downloads it from the Hub once."""

log = logging.getLogger(__name__)


def settled(table: HfTable, *, masked: bool) -> HfTable:
    """The table with `auto` replaced by the kernel, if this machine can use it.

    Args:
        table: The recipe's `[model]`.
        masked: Whether the training uses custom attention masks.
    """
    if table.attention != "auto" or masked or kernel_obstacle() is not None:
        return table
    return table.model_copy(update={"attention": KERNEL})


def kernel_obstacle() -> str | None:
    """Why this machine cannot use the Hub's kernel; `None` if it can."""
    import torch
    from transformers.utils import is_kernels_available

    generation = (
        torch.cuda.get_device_capability()[0] if torch.cuda.is_available() else 0
    )
    return obstacle(generation, is_kernels_available(), _load)


def obstacle(generation: int, installed: bool, load: Callable[[], None]) -> str | None:
    """Why the kernel cannot be used, cheap checks first; `None` if it can.

    Args:
        generation: Major compute capability of the GPU; 0 without a GPU.
        installed: Whether a version of `kernels` that transformers accepts is installed.
        load: Loads the kernel.
    """
    if not generation:
        return "no GPU"
    if generation < 8:
        return "the GPU is older than Ampere"
    if not installed:
        return "the package kernels is not installed"
    try:
        load()
    except Exception as error:  # SDPA can replace it, whatever went wrong
        log.info("%s cannot be loaded: %s", KERNEL, error)
        return f"{KERNEL} cannot be loaded"
    return None


def _load() -> None:
    from transformers.integrations.hub_kernels import load_and_register_attn_kernel

    load_and_register_attn_kernel(KERNEL)
