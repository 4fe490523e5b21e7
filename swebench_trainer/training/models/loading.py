"""Checks and loads the model and the tokenizer of a recipe."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from swebench_trainer.contracts import TrainRequest
from swebench_trainer.errors import PrerequisiteError, RecipeError
from swebench_trainer.training import failures
from swebench_trainer.training.loop import guards
from swebench_trainer.training.models import tiny
from swebench_trainer.training.models.table import HfTable

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_PROBE = "def f(x):\n\treturn  [x, 'a b']\n"
"""Text that a tokenizer for code must reproduce exactly."""

_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")

_TOKENIZER_FILES = (
    *_VOCABULARIES,
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
)


def check_model(table: HfTable) -> None:
    """Checks that the model can be used, by its config only.

    Raises:
        RecipeError: The model does not exist, or is not a causal one.
        PrerequisiteError: The Hub cannot be reached, or a package is missing.
    """
    if table.quantization == "nf4" and not importlib.util.find_spec("bitsandbytes"):
        raise PrerequisiteError(
            "4-bit training needs bitsandbytes.",
            hint='Run pip install bitsandbytes, or set [model] quantization = "none".',
        )
    if table.name in tiny.MODELS:
        return
    path = _config_path(table)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"Cannot read the config.json of {table.name}: {error}"
        ) from error
    if not _is_causal(config):
        kind = ", ".join(config.get("architectures") or ()) or config.get("model_type")
        raise RecipeError(
            f"{table.name} ({kind}) is not a causal language model, so it cannot write patches.",
            hint="Choose a decoder-only model: its architecture ends in ForCausalLM.",
        )


def load_tokenizer(
    table: HfTable, weights: Path | None = None
) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of the weights, or of the base model, and sets a pad token.

    Raises:
        RecipeError: The tokenizer has no EOS token, or cannot reproduce a text.
        PrerequisiteError: The tokenizer is not on this machine, and the Hub cannot be
            reached.
    """
    from transformers import AutoTokenizer
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    source, revision = source_of(table, weights)
    with _loading(table, weights):
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
            declared = get_tokenizer_config(source, revision=revision)
        except (OSError, ValueError):
            _require_tokenizer(source, revision)
            raise
    if tokenizer.eos_token_id is None:
        raise RecipeError(
            f"The tokenizer of {table.name} has no EOS token, so the model could not learn to stop.",
            hint="Set eos_token in a copy of the model's tokenizer_config.json.",
        )
    probe = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
    if tokenizer.decode(probe, clean_up_tokenization_spaces=False) != _PROBE:
        # Without files transformers creates an empty tokenizer, and some versions load
        # byte-level tokenizers as SentencePiece.
        _require_tokenizer(source, revision)
        raise RecipeError(
            f"The tokenizer of {table.name} ({type(tokenizer).__name__}) loses spaces or line breaks, so it cannot encode patches.",
            hint="Update transformers, or correct tokenizer_class in a copy of the model's tokenizer_config.json.",
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if declared.get("add_bos_token") and tokenizer.bos_token_id is not None:
        # transformers 5 ignores this setting unless tokenizer.json repeats it.
        tokenizer.add_bos_token = True
    if getattr(tokenizer, "fill_token", None):
        # CodeLlama's tokenizer would split an issue that contains <FILL_ME>.
        tokenizer.fill_token = None
    return tokenizer


def _require_tokenizer(source: str, revision: str | None) -> None:
    """Raises if the vocabulary is missing, which explains more than a library's error."""
    from huggingface_hub import try_to_load_from_cache

    if Path(source).is_dir():
        if not any(Path(source, name).is_file() for name in _VOCABULARIES):
            raise RecipeError(
                f"The directory {source} has no tokenizer.",
                hint=f"Add one of these files: {', '.join(_VOCABULARIES)}.",
            )
        return
    cached = (
        try_to_load_from_cache(source, n, revision=revision) for n in _VOCABULARIES
    )
    if not any(isinstance(path, str) for path in cached):
        raise PrerequisiteError(
            f"The tokenizer of {source} is not in the local cache.",
            hint=f"Run `hf download {source}` with network access, or use a local directory or {tiny.NAME}.",
        )


def load_model(
    table: HfTable, weights: Path | None = None
) -> PreTrainedModel | PeftModel:
    """Loads the base model, or trained weights, for inference.

    Args:
        table: The recipe's `[model]`.
        weights: `adapter/` or `model/` of an earlier training.

    Returns:
        The model in eval mode, with all weights frozen.
    """
    model = _load_base(table, weights)
    if is_adapter(weights):
        model = _load_adapter(model, weights, trainable=False)
    return model.requires_grad_(False).eval()


def load_policy_and_reference(
    table: HfTable, request: TrainRequest, *, sharded: bool
) -> tuple[PreTrainedModel | PeftModel, PreTrainedModel | None]:
    """Loads the policy of a preference training, and its reference.

    Args:
        table: The recipe's `[model]`.
        request: The stage's request; both models start from `start`.
        sharded: See `load_trainable`.

    Returns:
        Policy and reference. The reference is `None` with adapters: TRL then keeps a
        frozen copy of them, called "ref", on the same base model.

    Raises:
        StageError: The adapters to start from are untrained.
    """
    policy = load_trainable(table, request.start, request.seed, sharded=sharded)
    if request.start:
        guards.require_trained(policy)
    if base_of(policy) is not policy:
        return policy, None
    # In the precision of the policy: otherwise the first margins would not be zero.
    reference = _load_base(table, request.start, exact=True)
    return policy, reference.requires_grad_(False).eval()


def load_trainable(
    table: HfTable, weights: Path | None, seed: int, *, sharded: bool = False
) -> PreTrainedModel | PeftModel:
    """Loads a model to train: fresh adapters, earlier ones, or every weight.

    Trained weights are in fp32, on a GPU as well, where autocast computes in bf16: in
    bf16 small steps would round away.

    Args:
        table: The recipe's `[model]`.
        weights: Weights of an earlier training; `None` means the base model.
        seed: Seed of fresh adapters.
        sharded: Whether each process will keep only a part of the weights.
    """
    whole = table.lora is False and not is_adapter(weights)
    model = _load_base(table, weights, exact=whole, sharded=sharded)
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    if is_adapter(weights):
        return _unnamed(_load_adapter(model, weights, trainable=True))
    if table.lora is False:
        return model
    config = LoraConfig(
        r=table.lora.rank,
        lora_alpha=table.lora.alpha,
        lora_dropout=table.lora.dropout,
        target_modules=list(table.lora.targets),
        task_type="CAUSAL_LM",
    )
    set_seed(seed)
    try:
        return _unnamed(get_peft_model(model, config))
    except ValueError as error:  # peft lists the layers that it looked for
        raise RecipeError(
            f"The adapters do not fit {table.name}: {error}",
            hint="Set [model] lora = { targets = [...] } to names of the model's linear layers.",
        ) from error


def compute_dtype() -> torch.dtype:
    """Precision to compute in: bf16 on a GPU; fp32 on a CPU, where bf16 is 10x slower."""
    import torch

    return torch.bfloat16 if torch.cuda.is_available() else torch.float32


def declared_dtype(table: HfTable, weights: Path | None) -> torch.dtype:
    """Precision of the base model's files, in which a trained whole model is saved."""
    import torch
    from transformers import AutoConfig

    source, revision = source_of(table, weights)
    with _loading(table, weights):
        dtype = AutoConfig.from_pretrained(source, revision=revision).dtype
    return dtype if isinstance(dtype, torch.dtype) else compute_dtype()


def copy_tokenizer(table: HfTable, weights: Path | None, target: Path) -> None:
    """Copies the tokenizer's files unchanged.

    Saving our tokenizer instead would pass on settings such as its pad token.
    """
    from transformers.utils import cached_file

    source, revision = source_of(table, weights)
    for name in _TOKENIZER_FILES:
        path = cached_file(
            source,
            name,
            revision=revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if path:
            shutil.copyfile(path, target / name)


def base_of(model: Any) -> Any:
    """The transformers model inside a PEFT model; other models themselves."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


def is_adapter(weights: Path | None) -> TypeGuard[Path]:
    """Whether `weights` is a PEFT adapter rather than a whole model."""
    return weights is not None and (weights / "adapter_config.json").is_file()


def _unnamed(model: PeftModel) -> PeftModel:
    """Removes the base model's name from the adapter's config until it is saved.

    With a name, peft asks the Hub at every checkpoint whether the vocabulary has grown.
    Its model card would be written to every checkpoint, too.
    """
    model.peft_config["default"].base_model_name_or_path = ""
    model.create_or_update_model_card = lambda _: None
    return model


def _load_base(
    table: HfTable,
    weights: Path | None,
    *,
    exact: bool = False,
    sharded: bool = False,
) -> PreTrainedModel:
    failures.require_bitsandbytes()
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    if table.name in tiny.MODELS:
        torch.set_num_threads(tiny.THREADS)
    dtype = torch.float32 if exact else compute_dtype()
    options: dict[str, Any] = {}
    if table.quantization == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            # FSDP only shards parameters, and integers cannot be parameters.
            bnb_4bit_quant_storage=dtype if sharded else torch.uint8,
        )
    if table.attention != "auto":
        failures.require_attention(table.attention)
        options["attn_implementation"] = table.attention
    if torch.cuda.is_available():
        options["device_map"] = {"": torch.cuda.current_device()}
    source, revision = source_of(table, weights)
    with _loading(table, weights):
        model, report = AutoModelForCausalLM.from_pretrained(
            source,
            revision=revision,
            dtype=dtype,
            output_loading_info=True,
            **options,
        )
    failures.require_whole(source, report)
    _keep_4bit_differentiable(model)
    return model


def _keep_4bit_differentiable(model: PreTrainedModel) -> None:
    """Keeps bitsandbytes from repacking 4-bit weights on CPUs with AVX512-BF16.

    On such CPUs a forward in eval mode repacks the weights in place for a kernel without
    a backward, and layers below them no longer get a gradient.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _load_adapter(
    model: PreTrainedModel, weights: Path, *, trainable: bool
) -> PeftModel:
    from peft import PeftModel

    with failures.loading_weights(weights):
        # Without this check peft would ask the Hub for a missing file.
        (weights / "adapter_model.safetensors").stat()
        return PeftModel.from_pretrained(model, weights, is_trainable=trainable)


def source_of(table: HfTable, weights: Path | None) -> tuple[str, str | None]:
    """Source of base weights and tokenizer: path or Hub id, and revision."""
    if weights is not None and not is_adapter(weights):
        return str(weights), None
    if table.name in tiny.MODELS:
        return str(tiny.tiny_directory(table.name)), None
    return table.name, table.revision


@contextmanager
def _loading(table: HfTable, weights: Path | None) -> Iterator[None]:
    """Maps errors of libraries for missing files and packages to ours."""
    check_model(table)
    own = None if is_adapter(weights) else weights
    with (
        failures.loading(table.name),
        failures.loading_weights(own) if own else nullcontext(),
    ):
        yield


def _config_path(table: HfTable) -> Path:
    """Path of the model's config.json, downloaded from the Hub if needed."""
    folder = Path(table.name).expanduser()
    if folder.is_dir():
        if (folder / "adapter_config.json").is_file():
            raise RecipeError(
                f"{table.name} is an adapter, not a model.",
                hint="Set [model] name to the model that the adapter was trained on.",
            )
        if not (folder / "config.json").is_file():
            raise RecipeError(
                f"The directory {table.name} is not a model: it has no config.json."
            )
        return folder / "config.json"
    if table.name.startswith((".", "/", "~")):
        raise RecipeError(f"The directory {table.name} does not exist.")
    return _hub_config(table)


def _hub_config(table: HfTable) -> Path:
    from huggingface_hub import errors, hf_hub_download

    wanted = table.name + (f" at {table.revision}" if table.revision else "")
    try:
        return Path(hf_hub_download(table.name, "config.json", revision=table.revision))
    except errors.GatedRepoError as error:
        raise PrerequisiteError(
            f"{table.name} is gated, and this machine has no token with access.",
            hint="Accept its license on the Hub, then set HF_TOKEN or run: hf auth login",
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise PrerequisiteError(
            f"{wanted} is not in the local cache, and the Hub cannot be reached.",
            hint=f"Run `hf download {table.name}` with network access, or use a local directory or {tiny.NAME}.",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise RecipeError(
            f"{table.name} has no revision {table.revision!r}."
        ) from error
    except errors.EntryNotFoundError as error:
        raise RecipeError(
            f"{wanted} is not a transformers model: it has no config.json."
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise RecipeError(
            f"{table.name!r} is neither a model on the Hub nor a directory.",
            hint="Check the spelling; a private model needs HF_TOKEN.",
        ) from error


def _is_causal(config: dict[str, Any]) -> bool:
    """Whether `AutoModelForCausalLM` loads this as a decoder that was trained as one."""
    if config.get("is_encoder_decoder"):
        return False
    architectures = config.get("architectures") or ()
    endings = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
    return not architectures or any(name.endswith(endings) for name in architectures)
