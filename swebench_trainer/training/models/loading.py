"""The model under training: its recipe table, its checks, and how it is loaded."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from swebench_trainer.errors import PrerequisiteError, RecipeError
from swebench_trainer.training import failures
from swebench_trainer.training.models import tiny
from swebench_trainer.training.models.table import HfTable

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_PROBE = "def f(x):\n\treturn  [x, 'a b']\n"
"""What a tokenizer for code must give back as it is."""

_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json")

_BESIDE_A_VOCABULARY = (
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)


def check_model(table: HfTable) -> None:
    """Reads the model's config, and nothing else, and checks that it can be used.

    Raises:
        RecipeError: There is no such model, or it is not a causal one.
        PrerequisiteError: The Hub or a package is needed and not there.
    """
    if table.quantization == "nf4" and not importlib.util.find_spec("bitsandbytes"):
        raise PrerequisiteError(
            "4-bit training needs bitsandbytes.",
            hint='pip install bitsandbytes, or set [model] quantization = "none".',
        )
    if table.name in tiny.MODELS:
        return
    path = _config_path(table)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"The config.json of {table.name} cannot be read: {error}"
        ) from error
    if not _is_causal(config):
        kind = ", ".join(config.get("architectures") or ()) or config.get("model_type")
        raise RecipeError(
            f"{table.name} ({kind}) is not a causal language model, so it cannot write patches.",
            hint="Choose a decoder-only model, whose architecture ends in ForCausalLM.",
        )


def load_tokenizer(
    table: HfTable, weights: Path | None = None
) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of the weights, or of the base model; a pad token is set.

    Raises:
        RecipeError: The tokenizer has no EOS token, or does not give back a text.
        PrerequisiteError: It is not on this machine, and the Hub cannot be reached.
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
        # transformers makes an empty one of nothing, and has loaded byte-level ones
        # as SentencePiece.
        _require_tokenizer(source, revision)
        raise RecipeError(
            f"The tokenizer of {table.name} ({type(tokenizer).__name__}) loses spaces or line breaks, so no patch could be written with it.",
            hint="Update transformers, or correct tokenizer_class in a copy of the model's tokenizer_config.json.",
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if declared.get("add_bos_token") and tokenizer.bos_token_id is not None:
        # transformers 5 forgets it where tokenizer.json does not say it again.
        tokenizer.add_bos_token = True
    if getattr(tokenizer, "fill_token", None):
        # CodeLlama's would cut an issue that has <FILL_ME> in it for infilling.
        tokenizer.fill_token = None
    return tokenizer


def _require_tokenizer(source: str, revision: str | None) -> None:
    """Raises if there is no vocabulary, which is the better reason for what went wrong."""
    from huggingface_hub import try_to_load_from_cache

    if Path(source).is_dir():
        if not any(Path(source, name).is_file() for name in _VOCABULARIES):
            raise RecipeError(
                f"The directory {source} has no tokenizer.",
                hint=f"One of these files belongs there: {', '.join(_VOCABULARIES)}.",
            )
        return
    cached = (
        try_to_load_from_cache(source, n, revision=revision) for n in _VOCABULARIES
    )
    if not any(isinstance(path, str) for path in cached):
        raise PrerequisiteError(
            f"The tokenizer of {source} is not in the local cache.",
            hint=f"Run `hf download {source}` where there is a network, or name a directory or {tiny.NAME}.",
        )


def load_model(
    table: HfTable, weights: Path | None = None
) -> PreTrainedModel | PeftModel:
    """Loads the base model, or trained weights, for inference.

    Args:
        table: The recipe's `[model]`.
        weights: `adapter/` or `model/` of an earlier training.

    Returns:
        The model in eval mode, with no weight to be trained.
    """
    model = _load_base(table, weights)
    if is_adapter(weights):
        model = _load_adapter(model, weights, trainable=False)
    return model.requires_grad_(False).eval()


def load_reference(table: HfTable, weights: Path | None) -> PreTrainedModel:
    """Loads a frozen copy of what a training of every weight starts from.

    In the precision of the trained one: in another, the two would not agree at the
    start, and the first margin would not be zero.
    """
    return _load_base(table, weights, exact=True).requires_grad_(False).eval()


def load_trainable(
    table: HfTable, weights: Path | None, seed: int, *, sharded: bool = False
) -> PreTrainedModel | PeftModel:
    """Loads a model to be trained: fresh adapters, earlier ones, or every weight.

    Weights that are trained are fp32, on a GPU too, where autocast computes in bf16: in
    bf16 small steps would round away.

    Args:
        table: The recipe's `[model]`.
        weights: Where an earlier training left off; `None` means the base model.
        seed: Seed of fresh adapters.
        sharded: Whether several processes will each keep a part of it.
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
    except ValueError as error:  # peft names the layers that it has looked for
        raise RecipeError(
            f"The adapters do not fit {table.name}: {error}",
            hint="[model] lora = { targets = [...] } names the linear layers of the model.",
        ) from error


def compute_dtype() -> torch.dtype:
    """bf16 on a GPU; fp32 on a CPU, where bf16 is more than ten times slower."""
    import torch

    return torch.bfloat16 if torch.cuda.is_available() else torch.float32


def declared_dtype(table: HfTable, weights: Path | None) -> torch.dtype:
    """The precision in which the base model is kept, and a whole model is saved."""
    import torch
    from transformers import AutoConfig

    source, revision = source_of(table, weights)
    with _loading(table, weights):
        dtype = AutoConfig.from_pretrained(source, revision=revision).dtype
    return dtype if isinstance(dtype, torch.dtype) else compute_dtype()


def copy_tokenizer(table: HfTable, weights: Path | None, target: Path) -> None:
    """Copies the files of the tokenizer as they are.

    What is set on ours at loading, such as a pad token, is not for others to inherit.
    """
    from transformers.utils import cached_file

    source, revision = source_of(table, weights)
    for name in (*_VOCABULARIES, *_BESIDE_A_VOCABULARY):
        path = cached_file(
            source,
            name,
            revision=revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if path:
            shutil.copyfile(path, target / name)


def is_adapter(weights: Path | None) -> TypeGuard[Path]:
    """Whether `weights` is a PEFT adapter rather than a whole model."""
    return weights is not None and (weights / "adapter_config.json").is_file()


def _unnamed(model: PeftModel) -> PeftModel:
    """Takes the base model's name out of the adapter's config until it is saved.

    With one, peft asks the Hub at every checkpoint whether the vocabulary has grown.
    """
    model.peft_config["default"].base_model_name_or_path = ""
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
            # Integers cannot be parameters, and FSDP shards nothing else.
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
    """Forbids bitsandbytes to repack 4-bit weights on CPUs with AVX512-BF16.

    There a forward in eval mode repacks the weights in place for a kernel without
    a backward, and whatever is trained below them gets no gradient any more.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _load_adapter(
    model: PreTrainedModel, weights: Path, *, trainable: bool
) -> PeftModel:
    from peft import PeftModel

    with failures.loading_weights(weights):
        # peft asks the Hub for what is not here.
        (weights / "adapter_model.safetensors").stat()
        return PeftModel.from_pretrained(model, weights, is_trainable=trainable)


def source_of(table: HfTable, weights: Path | None) -> tuple[str, str | None]:
    """Where the base weights and the tokenizer are: path or Hub id, and revision."""
    if weights is not None and not is_adapter(weights):
        return str(weights), None
    if table.name in tiny.MODELS:
        return str(tiny.tiny_directory(table.name)), None
    return table.name, table.revision


@contextmanager
def _loading(table: HfTable, weights: Path | None) -> Iterator[None]:
    """Turns what libraries raise for missing files and packages into our errors."""
    check_model(table)
    own = None if is_adapter(weights) else weights
    with (
        failures.loading(table.name),
        failures.loading_weights(own) if own else nullcontext(),
    ):
        yield


def _config_path(table: HfTable) -> Path:
    """Path of the model's config.json, fetched from the Hub where needed."""
    folder = Path(table.name).expanduser()
    if folder.is_dir():
        if (folder / "adapter_config.json").is_file():
            raise RecipeError(
                f"{table.name} is an adapter, not a model.",
                hint="Name the model that the adapter was trained on.",
            )
        if not (folder / "config.json").is_file():
            raise RecipeError(
                f"The directory {table.name} has no config.json, so it is no model."
            )
        return folder / "config.json"
    if table.name.startswith((".", "/", "~")):
        raise RecipeError(f"There is no directory {table.name}.")
    return _hub_config(table)


def _hub_config(table: HfTable) -> Path:
    from huggingface_hub import errors, hf_hub_download

    wanted = table.name + (f" at {table.revision}" if table.revision else "")
    try:
        return Path(hf_hub_download(table.name, "config.json", revision=table.revision))
    except errors.GatedRepoError as error:
        raise PrerequisiteError(
            f"{table.name} is gated, and this machine has no token that may read it.",
            hint="Accept its licence on the Hub, then set HF_TOKEN or run: hf auth login",
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise PrerequisiteError(
            f"{wanted} is not in the local cache, and the Hub cannot be reached.",
            hint=f"Run `hf download {table.name}` where there is a network, or name a directory or {tiny.NAME}.",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise RecipeError(
            f"{table.name} has no revision {table.revision!r}."
        ) from error
    except errors.EntryNotFoundError as error:
        raise RecipeError(
            f"{wanted} has no config.json, so it is no transformers model."
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise RecipeError(
            f"There is no model {table.name!r} on the Hub, nor a directory of that name.",
            hint="Check the spelling; a private model needs HF_TOKEN.",
        ) from error


def _is_causal(config: dict[str, Any]) -> bool:
    """Whether `AutoModelForCausalLM` gives a decoder that was trained as one."""
    if config.get("is_encoder_decoder"):
        return False
    architectures = config.get("architectures") or ()
    endings = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
    return not architectures or any(name.endswith(endings) for name in architectures)
