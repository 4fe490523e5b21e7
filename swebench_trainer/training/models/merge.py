"""An adapter and its base made one model, and what that changes.

An adapter that was trained on 4-bit weights belongs to these weights: to add it to
the base in full precision takes the rounding away that it has learned to live with,
and to merge it into 4-bit weights rounds again. So it goes into the base in full
precision (`bf16`) or into what the 4-bit weights stand for (`dequantized`), and
either is compared with base and adapter as they were trained.
"""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from swebench_trainer.errors import PrerequisiteError, RecipeError
from swebench_trainer.store import durable
from swebench_trainer.store.jsonl import disk_errors, read_json, read_rows
from swebench_trainer.store.rundir import RunDir, StageDir
from swebench_trainer.training.models import tiny
from swebench_trainer.training.models.loading import (
    check_model,
    compute_dtype,
    is_adapter,
    load_model,
    load_tokenizer,
)
from swebench_trainer.training.models.saving import TRAINED
from swebench_trainer.training.models.table import HfTable
from swebench_trainer.training.silence import silence_libraries
from swebench_trainer.training.tokens.encoding import encode_completion, encode_prompt

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Way = Literal["bf16", "dequantized"]
"""Which base an adapter is merged into: its own weights, in bf16 on a GPU and fp32 on
a CPU, or its 4-bit weights made full ones."""

BUILT_IN = (
    (
        "Fix the function so that an empty list gives 0.\n\ndef mean(values):\n"
        "    return sum(values) / len(values)\n",
        "def mean(values):\n    if not values:\n        return 0\n"
        "    return sum(values) / len(values)\n",
    ),
)
"""Prompt and answer to compare on where there is no run to take them from."""

_ROWS, _TOKENS, _COMPARED = 4, 1024, 128
"""Rows to compare on, the most tokens of each, and how many of its last are compared."""

_TOKENIZER = (
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template*",
    "*.model",
    "*.tiktoken",
)
"""Names of the files that make a tokenizer."""

_ROOM = 1.1
"""So many times the bytes of the weights must be free on the disk."""


@dataclass(frozen=True)
class Trained:
    """An adapter, and what it was trained on.

    Attributes:
        table: The base model, with the quantization of the training.
        rows: Prompts and answers to compare on.
    """

    adapter: Path
    table: HfTable
    rows: Sequence[tuple[str, str]]

    @property
    def ways(self) -> tuple[Way, ...]:
        """How it can be merged; the way nearest to the training is first."""
        return (
            ("dequantized", "bf16") if self.table.quantization == "nf4" else ("bf16",)
        )


@dataclass(frozen=True)
class Drift:
    """How far a merged model is from base and adapter as they were trained.

    Attributes:
        largest: Largest absolute difference of a logit.
        mean: Mean absolute difference of the logits.
        divergence: Mean KL divergence of the next token, from the trained model to
            the merged one, in nats.
        agreement: Share of the tokens at which both would write the same next one.
        tokens: Tokens that were compared.
    """

    way: Way
    largest: float
    mean: float
    divergence: float
    agreement: float
    tokens: int


def find_trained(place: Path, model: str | None = None) -> Trained:
    """Finds the adapter of a run (the last one), of a stage, or in a directory.

    Args:
        place: A run directory, a stage's, or an adapter's. An adapter outside a run
            tells itself what it was trained on.
        model: Where the base is now: a directory, or a name on the Hub.

    Raises:
        RecipeError: There is no adapter, it does not tell what it was trained on, or
            the training left whole weights.
    """
    found = _found(place)
    if model is None:
        return found
    return replace(found, table=found.table.model_copy(update={"name": model}))


def _found(place: Path) -> Trained:
    if place.joinpath("run.json").is_file():
        return _of_run(RunDir(place), ("dpo", "sft"))
    stage = place.parent if is_adapter(place) else place
    run = RunDir(stage.parent.parent)
    if stage.parent.name == "stages" and run.facts.is_file():
        return _of_run(run, (stage.name,))
    if is_adapter(place):
        return Trained(place, _table_of(place), BUILT_IN)
    if place.joinpath("config.json").is_file():
        raise _nothing_to_merge(place)
    raise RecipeError(
        f"{place} is neither a run directory nor an adapter.",
        hint="Runs are called runs/NAME, and their adapters runs/NAME/stages/sft/adapter.",
    )


def _of_run(run: RunDir, stages: Sequence[str]) -> Trained:
    for stage in map(run.stage, stages):
        if _weights(stage) == "model":
            raise _nothing_to_merge(stage.file("model"))
        if _weights(stage) == "adapter":
            settings = read_json(run.resolved)["model"]
            table = HfTable.model_validate(settings, context={"folder": run.path})
            return Trained(stage.file("adapter"), table, _rows_of(run))
    raise RecipeError(
        f"{run.path} has no finished training.",
        hint="Call the run again to finish it.",
    )


def _table_of(adapter: Path) -> HfTable:
    """The base of an adapter that is in no run."""
    config = read_json(adapter / "adapter_config.json")
    trained = read_json(adapter / TRAINED)
    if trained is None:
        raise RecipeError(
            f"{adapter} does not tell whether its base was in 4 bits when it was trained on.",
            hint=f"""Say it: echo '{{"quantization": "nf4"}}' > {adapter / TRAINED}, or "none" instead of "nf4".""",
        )
    return HfTable(
        use="hf",
        name=config["base_model_name_or_path"],
        revision=config.get("revision"),
        quantization=trained["quantization"],
    )


def _weights(stage: StageDir) -> str:
    """Name of the directory of the weights; empty while the training is not done."""
    audit = read_json(stage.file("audit.json")) or {}
    return str(audit.get("weights", ""))


def _nothing_to_merge(model: Path) -> RecipeError:
    return RecipeError(
        f"There is nothing to merge: {model} has all the weights, not an adapter.",
        hint="Use it as it is.",
    )


def _rows_of(run: RunDir) -> Sequence[tuple[str, str]]:
    """Some rows that the run has learned, from all over its data."""
    rows = read_rows(run.stage("prepare").file("sft.jsonl"))
    some = rows[:: max(1, len(rows) // _ROWS)][:_ROWS]
    return [(row["prompt"], row["completion"]) for row in some] or BUILT_IN


@silence_libraries()
def merge(
    trained: Trained,
    out: Path,
    way: Way | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Drift]:
    """Writes the merged model as an ordinary directory of transformers.

    The tokenizer's files are the base's, byte for byte. `out` is there whole or not
    at all.

    Args:
        trained: See `find_trained`.
        out: Directory to make.
        way: What to merge into; by default the weights that it was trained on.
        tell: Told what is done at the moment.

    Returns:
        The drift of each way; that of the one that was written is last.

    Raises:
        RecipeError: `out` is there already, or the adapter cannot be merged so.
        PrerequisiteError: The disk has no room for the model.
    """
    way = way or trained.ways[0]
    if way not in trained.ways:
        raise RecipeError(
            "The adapter was not trained on 4-bit weights, so there are none to merge into.",
            hint="Leave --base away.",
        )
    if out.exists():
        raise RecipeError(f"{out} is there already.", hint="Name another directory.")
    check_model(trained.table)
    source = _base_folder(trained.table)
    _require_room(source, out)
    tokenizer = load_tokenizer(trained.table)
    batch = [_encode(tokenizer, *row) for row in trained.rows]
    tell("base and adapter as trained")
    expected = _logits(load_model(trained.table, trained.adapter), batch)
    drifts = []
    for each in sorted(trained.ways, key=lambda other: other == way):
        tell(f"merged into {each}")
        gc.collect()  # the model before: two may not fit
        model = _merged(trained, each)
        drifts.append(_drift(each, expected, _logits(model, batch)))
    tell(f"writing {out}")
    _write(model, source, out)
    return drifts


def _base_folder(table: HfTable) -> Path:
    """Where config and tokenizer of the base are, fetched from the Hub where needed."""
    if table.name in tiny.MODELS:
        return tiny.tiny_directory(table.name)
    if Path(table.name).is_dir():
        return Path(table.name)
    from huggingface_hub import snapshot_download

    patterns = ["config.json", *_TOKENIZER]
    return Path(
        snapshot_download(table.name, revision=table.revision, allow_patterns=patterns)
    )


def _require_room(source: Path, out: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source))
    elements = sum(p.numel() for p in model.parameters())
    needed = int(elements * compute_dtype().itemsize * _ROOM)
    folder = next(p for p in out.absolute().parents if p.is_dir())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise PrerequisiteError(
            f"The merged model needs {needed / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB left.",
            hint="Free some space, or name a directory on another disk.",
        )


def _encode(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str) -> list[int]:
    ids = encode_prompt(tokenizer, prompt) + encode_completion(tokenizer, answer)
    return ids[-_TOKENS:]


def _merged(trained: Trained, way: Way) -> PreTrainedModel:
    from peft import PeftModel

    if way == "bf16":
        whole = trained.table.model_copy(update={"quantization": "none"})
        model = load_model(whole, trained.adapter)
    else:
        base = load_model(trained.table).dequantize(compute_dtype())
        model = PeftModel.from_pretrained(base, trained.adapter)
    return model.eval().merge_and_unload(safe_merge=True)


def _logits(model: Any, batch: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """(tokens, vocabulary) of each row: the logits after its last tokens, in fp32."""
    import torch

    found = []
    with torch.no_grad():
        for ids in batch:
            row = torch.tensor([ids], device=model.device)
            logits = model(input_ids=row, logits_to_keep=_COMPARED).logits
            found.append(logits[0].float().cpu())
    return found


def _drift(
    way: Way, expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor]
) -> Drift:
    import torch
    from torch.nn.functional import kl_div

    one, other = torch.cat(list(expected)), torch.cat(list(found))
    difference = (one - other).abs()
    divergence = kl_div(
        other.log_softmax(-1), one.log_softmax(-1), log_target=True, reduction="sum"
    )
    return Drift(
        way,
        largest=float(difference.max()),
        mean=float(difference.mean()),
        divergence=float(divergence) / len(one),
        agreement=float((one.argmax(-1) == other.argmax(-1)).float().mean()),
        tokens=len(one),
    )


def _write(model: PreTrainedModel, source: Path, out: Path) -> None:
    """Writes model and tokenizer beside `out`, and names them when they are there."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with disk_errors(out):
            model.save_pretrained(partial)
            for pattern in _TOKENIZER:
                for path in source.glob(pattern):
                    shutil.copyfile(path, partial / path.name)
        _forget_place(partial / "config.json")
        durable.move(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _forget_place(config: Path) -> None:
    """Takes out of the config where the base lies on this machine."""
    content = json.loads(config.read_text(encoding="utf-8"))
    content.pop("_name_or_path", None)
    config.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
