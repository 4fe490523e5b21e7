"""Trained weights on the disk: whole or not there at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swebench_trainer.store import durable
from swebench_trainer.store.jsonl import write_json
from swebench_trainer.training.models.loading import copy_tokenizer
from swebench_trainer.training.models.table import HfTable

if TYPE_CHECKING:
    import torch

TRAINED = "swebench_trainer.json"
"""What PEFT's own config leaves out: in how many bits the base was when it was trained on."""


def save(
    out: Path,
    model: Any,
    state: Mapping[str, torch.Tensor] | None,
    table: HfTable,
    start: Path | None,
    dtype: torch.dtype | None,
) -> Path:
    """Writes trained weights in one move; earlier ones make way.

    Args:
        out: Directory that gets `adapter/` (PEFT layout) or `model/` (all weights).
        model: The trainer's.
        state: Its weights, where it holds a part of them alone.
        table: The recipe's `[model]`.
        start: The weights that the training began with, if not the base model's.
        dtype: What all weights are cast to, for good; `None` leaves them.

    Returns:
        The directory of the weights.
    """
    from peft import PeftModel

    adapter = isinstance(model, PeftModel)
    target = out / ("adapter" if adapter else "model")
    folder = out / f".{target.name}.partial"
    shutil.rmtree(folder, ignore_errors=True)
    if adapter:
        # DPO's frozen copy of the start, the adapter "ref", stays behind.
        model.save_pretrained(folder, selected_adapters=["default"], state_dict=state)
        (folder / "README.md").unlink(missing_ok=True)
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
    """Writes the base model's public name over the path that it was loaded from.

    Of a model in a directory that is the directory's own name: where it lies on
    this machine concerns nobody else.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    local = Path(table.name).is_absolute()
    config["base_model_name_or_path"] = Path(table.name).name if local else table.name
    config["revision"] = table.revision
    config["target_modules"] = sorted(config["target_modules"])  # a set to peft
    write_json(path, config)
