"""Which attention a training runs with, where the recipe leaves it open.

The flash attention kernel of the Hub reads packed rows at once. It takes no mask of
our own, so DPO with shared prompts keeps SDPA; so does every machine without a GPU
that it is built for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from swebench_trainer.training.models.table import HfTable

KERNEL = "kernels-community/flash-attn2"
"""As transformers names it; it is fetched from the Hub once."""

log = logging.getLogger(__name__)


def settled(table: HfTable, *, masked: bool) -> HfTable:
    """The table with an attention in the place of `auto`, unless it is the default.

    Args:
        table: The recipe's `[model]`.
        masked: Whether the training has a mask of its own.
    """
    if table.attention != "auto" or masked or why_not_kernel() is not None:
        return table
    return table.model_copy(update={"attention": KERNEL})


def why_not_kernel() -> str | None:
    """Why the Hub's kernel cannot be used on this machine; `None` if it can."""
    import torch
    from transformers.utils import is_kernels_available

    generation = (
        torch.cuda.get_device_capability()[0] if torch.cuda.is_available() else 0
    )
    return obstacle(generation, is_kernels_available(), _load)


def obstacle(generation: int, installed: bool, load: Callable[[], None]) -> str | None:
    """What stands against the kernel, the cheap questions first.

    Args:
        generation: Major compute capability of the GPU; 0 where there is none.
        installed: Whether there is a `kernels` package that transformers takes.
        load: Loads the kernel.
    """
    if not generation:
        return "there is no GPU"
    if generation < 8:
        return "the GPU is older than flash attention"
    if not installed:
        return "the package kernels is not installed"
    try:
        load()
    except Exception as error:  # whatever it is, there is another attention
        log.info("%s cannot be loaded: %s", KERNEL, error)
        return f"{KERNEL} cannot be loaded"
    return None


def _load() -> None:
    from transformers.integrations.hub_kernels import load_and_register_attn_kernel

    load_and_register_attn_kernel(KERNEL)
