"""Merges an adapter into its base model.

An adapter trained on 4-bit weights belongs to those weights. Merging it into the original
weights (`bf16`) removes the rounding that it has adapted to, and merging it into 4-bit
weights would round again. So the default for such an adapter is its 4-bit weights in full
precision (`dequantized`). The next tokens of the merged model are compared with those of
the model as trained.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from swebench_trainer.errors import PrerequisiteError, RecipeError
from swebench_trainer.store import durable
from swebench_trainer.store.jsonl import disk_errors, read_json, write_json
from swebench_trainer.store.rundir import RunDir, StageDir
from swebench_trainer.training.models.loading import (
    check_model,
    compute_dtype,
    copy_tokenizer,
    is_adapter,
    load_model,
    load_tokenizer,
    source_of,
)
from swebench_trainer.training.models.saving import TRAINED
from swebench_trainer.training.models.table import HfTable
from swebench_trainer.training.silence import silence_libraries
from swebench_trainer.training.tokens.encoding import encode_prompt

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Base = Literal["bf16", "dequantized"]
"""Weights to merge into: the original ones (bf16 on a GPU, fp32 on a CPU), or the 4-bit
ones in full precision."""

_SAMPLE = (
    "Fix the function so that an empty list gives 0.\n\ndef mean(values):\n"
    "    return sum(values) / len(values)\n\n"
    "def mean(values):\n    if not values:\n        return 0\n"
    "    return sum(values) / len(values)\n"
)
"""Text on which the merged model is compared with the trained one."""

_ROOM = 1.1
"""Free disk space to require, relative to the size of the weights."""


@dataclass(frozen=True)
class Trained:
    """An adapter, and the base model it was trained on.

    Attributes:
        table: The base model, with the quantization of the training.
    """

    adapter: Path
    table: HfTable

    @property
    def bases(self) -> tuple[Base, ...]:
        """Weights it can be merged into; those it was trained on come first."""
        four_bit = self.table.quantization == "nf4"
        return ("dequantized", "bf16") if four_bit else ("bf16",)


@dataclass(frozen=True)
class Merged:
    """The result of a merge.

    Attributes:
        base: The weights that the adapter was merged into.
        agreement: Share of tokens of a sample text after which the merged model predicts
            the same next token as the model as trained.
    """

    base: Base
    agreement: float


def find_trained(path: Path, model: str | None = None) -> Trained:
    """Finds the adapter of a run (its last training), of a stage, or in a directory.

    Args:
        path: A run directory, a stage directory, or an adapter directory. Outside a run
            the adapter's own files name its base model.
        model: Current location of the base model: a directory, or a name on the Hub.

    Raises:
        RecipeError: The path has no adapter, its base model is unknown, or the training
            produced whole weights.
    """
    found = _find(path)
    if model is None:
        return found
    return replace(found, table=found.table.model_copy(update={"name": model}))


def _find(path: Path) -> Trained:
    if path.joinpath("run.json").is_file():
        return _of_run(RunDir(path), "dpo", "sft")
    stage = path.parent if is_adapter(path) else path
    run = RunDir(stage.parent.parent)
    if stage.parent.name == "stages" and run.facts.is_file():
        return _of_run(run, stage.name)
    if is_adapter(path):
        return Trained(path, _table_of(path))
    if path.joinpath("config.json").is_file():
        raise _nothing_to_merge(path)
    raise RecipeError(
        f"{path} is neither a run directory nor an adapter.",
        hint="Expected runs/NAME, or an adapter such as runs/NAME/stages/sft/adapter.",
    )


def _of_run(run: RunDir, *stages: str) -> Trained:
    for stage in map(run.stage, stages):
        if _weights(stage) == "model":
            raise _nothing_to_merge(stage.file("model"))
        if _weights(stage) == "adapter":
            stage.require_unchanged()
            settings = read_json(run.resolved)["model"]
            table = HfTable.model_validate(settings, context={"folder": run.path})
            return Trained(stage.file("adapter"), table)
    raise RecipeError(
        f"{run.path} has no finished training.", hint="Resume the run to finish it."
    )


def _table_of(adapter: Path) -> HfTable:
    """The base model of an adapter outside a run."""
    config = read_json(adapter / "adapter_config.json")
    trained = read_json(adapter / TRAINED)
    if trained is None:
        raise RecipeError(
            f"Cannot tell whether the base model of {adapter} was in 4 bits during training.",
            hint=f"""Run echo '{{"quantization": "nf4"}}' > {adapter / TRAINED}, or "none" instead of "nf4".""",
        )
    return HfTable(
        use="hf",
        name=config["base_model_name_or_path"],
        revision=config.get("revision"),
        quantization=trained["quantization"],
    )


def _weights(stage: StageDir) -> str:
    """Name of the directory of the weights; empty while the training is unfinished."""
    audit = read_json(stage.file("audit.json")) or {}
    return str(audit.get("weights", ""))


def _nothing_to_merge(model: Path) -> RecipeError:
    return RecipeError(
        f"Nothing to merge: {model} is a whole model, not an adapter.",
        hint="Use it directly.",
    )


@silence_libraries()
def merge(
    trained: Trained,
    out: Path,
    base: Base | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Merged:
    """Writes the merged model as an ordinary transformers directory.

    The tokenizer's files are those of the base model, byte for byte. `out` is created
    atomically.

    Args:
        trained: See `find_trained`.
        out: Directory to create.
        base: Weights to merge into; by default those of the training.
        report: Called with each step.

    Raises:
        RecipeError: `out` exists, or the adapter was not trained on 4-bit weights.
        PrerequisiteError: The disk has too little space.
    """
    base = base or trained.bases[0]
    if base not in trained.bases:
        raise RecipeError(
            "The adapter was not trained on 4-bit weights, so it cannot be merged into them.",
            hint="Omit --base.",
        )
    if out.exists():
        raise RecipeError(f"{out} already exists.", hint="Choose another directory.")
    check_model(trained.table)
    _require_room(trained.table, out)
    ids = encode_prompt(load_tokenizer(trained.table), _SAMPLE)
    report("load base model and adapter as trained")
    expected = _next_tokens(load_model(trained.table, trained.adapter), ids)
    gc.collect()  # frees the first model: two may not fit
    report(f"merge into {base}")
    model = _merge_into(trained, base)
    agreement = float((_next_tokens(model, ids) == expected).float().mean())
    report(f"write {out}")
    _write(model, trained.table, out)
    return Merged(base, agreement)


def _require_room(table: HfTable, out: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    source, revision = source_of(table, None)
    config = AutoConfig.from_pretrained(source, revision=revision)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    elements = sum(p.numel() for p in model.parameters())
    needed = int(elements * compute_dtype().itemsize * _ROOM)
    folder = next(p for p in out.absolute().parents if p.is_dir())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise PrerequisiteError(
            f"The merged model needs {needed / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB left.",
            hint="Free some space, or choose a directory on another disk.",
        )


def _merge_into(trained: Trained, base: Base) -> PreTrainedModel:
    from peft import PeftModel

    if base == "bf16":
        unquantized = trained.table.model_copy(update={"quantization": "none"})
        model = load_model(unquantized, trained.adapter)
    else:
        whole = load_model(trained.table).dequantize(compute_dtype())
        model = PeftModel.from_pretrained(whole, trained.adapter)
    return model.eval().merge_and_unload(safe_merge=True)


def _next_tokens(model: Any, ids: list[int]) -> torch.Tensor:
    """The most likely next token after each token, (tokens,)."""
    import torch

    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids], device=model.device)).logits
    tokens: torch.Tensor = logits[0].argmax(-1).cpu()
    return tokens


def _write(model: PreTrainedModel, table: HfTable, out: Path) -> None:
    """Writes model and tokenizer to a temporary directory, then renames it to `out`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with disk_errors(out):
            model.save_pretrained(partial)
            copy_tokenizer(table, None, partial)
        _remove_local_path(partial / "config.json")
        durable.move(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_local_path(config: Path) -> None:
    """Removes the base model's path on this machine from a config."""
    content = read_json(config)
    content.pop("_name_or_path", None)
    write_json(config, content)
