"""Saves trained weights atomically: a directory has all of them or does not exist."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swebench_trainer.store import durable
from swebench_trainer.store.jsonl import read_json, write_json
from swebench_trainer.training.models.loading import copy_tokenizer
from swebench_trainer.training.models.table import HfTable

if TYPE_CHECKING:
    import torch

TRAINED = "swebench_trainer.json"
"""File in an adapter's directory with a fact that PEFT's config lacks: the quantization
of the base model during training."""


def save(
    out: Path,
    model: Any,
    state: Mapping[str, torch.Tensor] | None,
    table: HfTable,
    start: Path | None,
    dtype: torch.dtype | None,
) -> Path:
    """Writes trained weights and replaces earlier ones.

    Args:
        out: Parent of the new `adapter/` (PEFT layout) or `model/` (all weights).
        model: The trainer's model.
        state: Its complete weights, where this process holds only a part of them.
        table: The recipe's `[model]`.
        start: Weights that the training started from; `None` means the base model.
        dtype: Precision to cast a whole model to, in place; `None` leaves it unchanged.

    Returns:
        The directory of the weights.
    """
    from peft import PeftModel

    adapter = isinstance(model, PeftModel)
    target = out / ("adapter" if adapter else "model")
    folder = out / f".{target.name}.partial"
    shutil.rmtree(folder, ignore_errors=True)
    if adapter:
        # Leaves out "ref", DPO's frozen copy of the starting adapter.
        model.save_pretrained(folder, selected_adapters=["default"], state_dict=state)
        _name_base(folder / "adapter_config.json", table)
        write_json(folder / TRAINED, {"quantization": table.quantization})
    else:
        cast = model if dtype is None else model.to(dtype)
        cast.save_pretrained(folder, state_dict=state)
        copy_tokenizer(table, start, folder)
    shutil.rmtree(target, ignore_errors=True)
    durable.move(folder, target)
    return target


def _name_base(path: Path, table: HfTable) -> None:
    """Replaces the path that the base model was loaded from with its public name.

    For a local model that is the name of its directory: the full path would only reveal
    the layout of this machine.
    """
    config = read_json(path)
    local = Path(table.name).is_absolute()
    config["base_model_name_or_path"] = Path(table.name).name if local else table.name
    config["revision"] = table.revision
    config["target_modules"] = sorted(config["target_modules"])  # peft has a set
    write_json(path, config)
