"""What the libraries raise where a training cannot begin or go on, in plain words.

torch, transformers, peft, bitsandbytes and safetensors each have their own way to say
that memory, disk or files are missing, and some say it in a way that no handler upstream
recognises. They are told apart here and nowhere else; what is not known stays a bug with
its traceback.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import os
import re
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swebench_trainer.errors import (
    PrerequisiteError,
    RecipeError,
    StageError,
    TrainerError,
    library_message,
)
from swebench_trainer.recipe.models import DpoTable, TrainTable
from swebench_trainer.training.loop import activation_checkpointing

if TYPE_CHECKING:
    from swebench_trainer.training.models.table import HfTable

GOES_ON = "the same command goes on from the last checkpoint"

_AGAIN = "Download or copy the whole model again."
_REDO = "Make them anew: run the recipe with --redo and the stage that wrote them."

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_IN_WORDS = re.compile(
    # Writers in C++ and Rust (torch, safetensors, tokenizers) lose the error's number,
    # and some the kind of the error.
    r"No space left|quota exceeded|File too large|PytorchStreamWriter failed"
    r"|unexpected pos \d+ vs \d+|os error (28|122|27)\b",
    re.IGNORECASE,
)
_NO_MEMORY_IN_WORDS = re.compile(
    r"can't allocate memory|CUDA out of memory|CUBLAS_STATUS_ALLOC_FAILED"
    r"|Cannot allocate memory",
    re.IGNORECASE,
)
_OTHER_SHAPES = re.compile(r"ignore_mismatched_sizes|size mismatch", re.IGNORECASE)


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Explains why a base model or its tokenizer cannot be loaded.

    Args:
        name: What `[model] name` says.

    Raises:
        PrerequisiteError: A package is missing or broken.
        RecipeError: The files are not there, or not those of such a model.
        StageError: The memory is too small for the weights alone.
    """
    from safetensors import SafetensorError

    try:
        yield
    except ImportError as error:
        raise PrerequisiteError(
            f"{name} needs a package that is not installed: {_first_line(error)}",
            hint='Install it, or set [model] attention = "auto".',
        ) from error
    except SafetensorError as error:
        raise RecipeError(
            f"The weights of {name} are damaged: {_first_line(error)}", hint=_AGAIN
        ) from error
    except (OSError, ValueError) as error:
        raise RecipeError(f"{name} cannot be loaded: {error}") from error
    except (RuntimeError, MemoryError) as error:
        if _is_out_of_memory(error):
            raise StageError(
                f"The memory is too small for {name} itself: {_first_line(error)}",
                hint='Set [model] quantization = "nf4", or choose a smaller model.',
            ) from error
        if _OTHER_SHAPES.search(library_message(error)):
            raise RecipeError(
                f"The weights of {name} have other shapes than its config.json says.",
                hint=_AGAIN,
            ) from error
        raise


@contextmanager
def loading_weights(weights: Path) -> Iterator[None]:
    """Explains why the weights of an earlier training cannot be loaded.

    Args:
        weights: `adapter/` or `model/` of a stage.

    Raises:
        StageError: They are gone, damaged, or of another model.
    """
    from safetensors import SafetensorError

    if not weights.is_dir():
        raise StageError(f"The weights in {weights} are gone.", hint=_REDO)
    try:
        yield
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise StageError(
            f"The weights in {weights} cannot be read: {_first_line(error)}", hint=_REDO
        ) from error
    except RuntimeError as error:
        if not _OTHER_SHAPES.search(library_message(error)):
            raise
        raise StageError(
            f"The weights in {weights} are those of another model.", hint=_REDO
        ) from error


def require_whole(name: str, report: Any) -> None:
    """Checks that every weight was read from a file.

    transformers draws missing ones at random and says so in a log line.

    Args:
        name: What `[model] name` says.
        report: What `from_pretrained(output_loading_info=True)` tells.

    Raises:
        RecipeError: Some are missing.
    """
    missing = sorted(report["missing_keys"])
    if missing:
        raise RecipeError(
            f"The files of {name} lack {len(missing)} of its weights, {missing[0]} among them.",
            hint=_AGAIN,
        )


def require_bitsandbytes(*, gpu: bool | None = None) -> None:
    """Checks that bitsandbytes, if it is installed, can be imported and used.

    peft imports it whenever it is there, 4 bits or not.

    Args:
        gpu: Whether its GPU library is needed; by default where there is a GPU.

    Raises:
        PrerequisiteError: It is broken.
    """
    import torch

    if not importlib.util.find_spec("bitsandbytes"):
        return
    gpu = torch.cuda.is_available() if gpu is None else gpu
    try:
        library = importlib.import_module("bitsandbytes.cextension").lib
    except Exception as error:  # whatever its native libraries raise
        reason = _first_line(error)
    else:
        # In its place stands an object that raises when it is first used.
        if not (gpu and type(library).__name__.startswith("ErrorHandlerMock")):
            return
        reason = f"it has no library for CUDA {torch.version.cuda}"
    raise PrerequisiteError(
        f"bitsandbytes is installed and does not work: {reason}",
        hint='Install a version for this CUDA (`python -m bitsandbytes` tells more), or uninstall it and set [model] quantization = "none".',
    )


def require_attention(implementation: str) -> None:
    """Checks that this machine can run an attention implementation.

    Raises:
        PrerequisiteError: It is made for GPUs, and there is none.
    """
    import torch

    if "flash" in implementation and not torch.cuda.is_available():
        raise PrerequisiteError(
            f'[model] attention = "{implementation}" needs a GPU, and torch finds none.',
            hint='Set attention = "auto", or install a torch with CUDA.',
        )


@contextmanager
def training(
    table: HfTable,
    settings: TrainTable,
    audit: Mapping[str, Any],
    out: Path,
) -> Iterator[None]:
    """Explains why a training or the saving of its weights ended early.

    Args:
        table: The recipe's `[model]`.
        settings: The recipe's `[sft]` or `[dpo]`.
        audit: What is known of the rows.
        out: Directory of the stage; what `checkpointing` has measured there is shown.

    Raises:
        StageError: Memory or disk ran out.
    """
    try:
        yield
    except TrainerError:
        raise
    except Exception as error:  # told apart below; what is not known is raised again
        if _is_out_of_memory(error):
            raise _out_of_memory(table, settings, audit, out) from error
        if _is_full(error):
            raise StageError(
                f"No space left on the disk while writing checkpoints or weights to {out}.",
                hint=f"Free some space; {GOES_ON}.",
            ) from error
        raise


def _out_of_memory(
    table: HfTable, settings: TrainTable, audit: Mapping[str, Any], out: Path
) -> StageError:
    """What was on the device, and the keys that put less there, cheapest first."""
    stage = "dpo" if isinstance(settings, DpoTable) else "sft"
    probed = "".join(
        f", {name} {value}"
        for name, value in activation_checkpointing.figures(out).items()
    )
    longest = audit["longest_kept"]
    at_once = "micro_tokens" if settings.micro_tokens else "micro_batch"
    goes_on: list[str] = []
    anew: list[str] = []
    if less := _less_at_once(settings, longest):
        keys = anew if at_once in settings.binding else goes_on
        redo = f" with --redo {stage}" if keys is anew else ""
        keys.append(f"[{stage}] {at_once} = {less}{redo}")
    if table.checkpointing not in ("full", "offload"):
        goes_on.append('[model] checkpointing = "full"')
    anew.append(f"[prompt] max_tokens below {longest} with --redo sft")
    if table.quantization == "none" and table.lora is not False:
        anew.append('[model] quantization = "nf4" with --redo sft')
    hint = f"{', then '.join(goes_on)}; {GOES_ON}. Or " if goes_on else ""
    return StageError(
        f"Out of memory: {_memory()}; the longest row has {longest} tokens, {at_once} is {getattr(settings, at_once)}{probed}.",
        hint=f"{hint}{', or '.join(anew)}.",
    )


def _less_at_once(settings: TrainTable, longest: int) -> int:
    """What `micro_tokens` or `micro_batch` may be instead; 0 where it cannot be less."""
    if settings.micro_tokens:
        less = settings.micro_tokens // 2
        return max(less, longest) if settings.micro_tokens > longest else 0
    least = 2 if isinstance(settings, DpoTable) and settings.loss == "kto" else 1
    rows = settings.batch_size // settings.processes
    smaller = range(settings.micro_batch // 2, least - 1, -1)
    return next((size for size in smaller if rows % size == 0), 0)


def _memory() -> str:
    """How much of the device's memory was taken at most, in words."""
    import torch

    if torch.cuda.is_available():
        device = torch.cuda.current_device()
        taken = torch.cuda.max_memory_allocated(device)
        total = torch.cuda.get_device_properties(device).total_memory
        name = torch.cuda.get_device_name(device)
    else:
        taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        name = "this machine"
    return f"{taken / 2**30:.1f} of the {total / 2**30:.1f} GiB of {name} were taken"


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    cpu = isinstance(error, RuntimeError) and _NO_MEMORY_IN_WORDS.search(
        library_message(error)
    )
    return bool(cpu) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in _FULL
    return bool(_FULL_IN_WORDS.search(library_message(error)))


def _first_line(error: BaseException) -> str:
    return (library_message(error).strip() or type(error).__name__).splitlines()[0]
