"""Maps errors of the training libraries to errors with a message and a hint.

torch, transformers, peft, bitsandbytes and safetensors report missing memory, disk space
and files in different ways, some only by the text of a `RuntimeError`. This is the only
module that looks at such texts. Unknown errors are raised again: they are bugs, and keep
their traceback.
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

RESUME = "the same command resumes from the last checkpoint"

_DOWNLOAD = "Download or copy the whole model again."
_REDO = "Run the recipe with --redo and the stage that wrote them."

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DISK_FULL_TEXT = re.compile(
    # Writers in C++ and Rust (torch, safetensors, tokenizers) drop errno, and some raise
    # another type of exception.
    r"No space left|quota exceeded|File too large|PytorchStreamWriter failed"
    r"|unexpected pos \d+ vs \d+|os error (28|122|27)\b",
    re.IGNORECASE,
)
_OUT_OF_MEMORY_TEXT = re.compile(
    r"can't allocate memory|CUDA out of memory|CUBLAS_STATUS_ALLOC_FAILED"
    r"|Cannot allocate memory",
    re.IGNORECASE,
)
_SHAPE_MISMATCH_TEXT = re.compile(
    r"ignore_mismatched_sizes|size mismatch", re.IGNORECASE
)


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Maps errors while a base model or its tokenizer is loaded.

    Args:
        name: The value of `[model] name`.

    Raises:
        PrerequisiteError: A package is missing or broken.
        RecipeError: Files are missing or damaged, or belong to another kind of model.
        StageError: The weights do not fit in memory.
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
            f"The weights of {name} are damaged: {_first_line(error)}", hint=_DOWNLOAD
        ) from error
    except (OSError, ValueError) as error:
        raise RecipeError(f"Cannot load {name}: {error}") from error
    except (RuntimeError, MemoryError) as error:
        if _is_out_of_memory(error):
            raise StageError(
                f"{name} does not fit in memory: {_first_line(error)}",
                hint='Set [model] quantization = "nf4", or choose a smaller model.',
            ) from error
        if _SHAPE_MISMATCH_TEXT.search(library_message(error)):
            raise RecipeError(
                f"The weights of {name} do not have the shapes of its config.json.",
                hint=_DOWNLOAD,
            ) from error
        raise


@contextmanager
def loading_weights(weights: Path) -> Iterator[None]:
    """Maps errors while the weights of an earlier training are loaded.

    Args:
        weights: `adapter/` or `model/` of a stage.

    Raises:
        StageError: The weights are missing, damaged, or belong to another model.
    """
    from safetensors import SafetensorError

    if not weights.is_dir():
        raise StageError(f"The weights in {weights} are missing.", hint=_REDO)
    try:
        yield
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise StageError(
            f"Cannot read the weights in {weights}: {_first_line(error)}", hint=_REDO
        ) from error
    except RuntimeError as error:
        if not _SHAPE_MISMATCH_TEXT.search(library_message(error)):
            raise
        raise StageError(
            f"The weights in {weights} belong to another model.", hint=_REDO
        ) from error


def require_whole(name: str, report: Any) -> None:
    """Checks that every weight was read from a file.

    transformers initializes missing weights at random and only logs it.

    Args:
        name: The value of `[model] name`.
        report: The loading info of `from_pretrained(output_loading_info=True)`.

    Raises:
        RecipeError: Some weights are missing.
    """
    missing = sorted(report["missing_keys"])
    if missing:
        raise RecipeError(
            f"The files of {name} lack {len(missing)} of its weights, for example {missing[0]}.",
            hint=_DOWNLOAD,
        )


def require_bitsandbytes(*, gpu: bool | None = None) -> None:
    """Checks that bitsandbytes, if installed, can be imported and used.

    peft imports it whenever it is installed, even for 16-bit models.

    Args:
        gpu: Whether its GPU library is needed; by default if this machine has a GPU.

    Raises:
        PrerequisiteError: It is broken.
    """
    import torch

    if not importlib.util.find_spec("bitsandbytes"):
        return
    gpu = torch.cuda.is_available() if gpu is None else gpu
    try:
        library = importlib.import_module("bitsandbytes.cextension").lib
    except Exception as error:  # its native libraries can raise anything
        reason = _first_line(error)
    else:
        # Without the library it is a stand-in that raises on first use.
        if not (gpu and type(library).__name__.startswith("ErrorHandlerMock")):
            return
        reason = f"it has no library for CUDA {torch.version.cuda}"
    raise PrerequisiteError(
        f"bitsandbytes is installed but does not work: {reason}",
        hint='Install a version for this CUDA (see `python -m bitsandbytes`), or uninstall it and set [model] quantization = "none".',
    )


def require_attention(implementation: str) -> None:
    """Checks that this machine can run an attention implementation.

    Raises:
        PrerequisiteError: It needs a GPU, and this machine has none.
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
    """Maps errors of a training and of saving its weights.

    Args:
        table: The recipe's `[model]`.
        settings: The recipe's `[sft]` or `[dpo]`.
        audit: The counts of the rows.
        out: Directory of the stage, with the measurements of `activation_checkpointing`.

    Raises:
        StageError: Memory or disk space ran out.
    """
    try:
        yield
    except TrainerError:
        raise
    except Exception as error:  # mapped below, or raised again
        if _is_out_of_memory(error):
            raise _out_of_memory(table, settings, audit, out) from error
        if _is_full(error):
            raise StageError(
                f"No space left on the disk while writing checkpoints or weights to {out}.",
                hint=f"Free some space; {RESUME}.",
            ) from error
        raise


def _out_of_memory(
    table: HfTable, settings: TrainTable, audit: Mapping[str, Any], out: Path
) -> StageError:
    """Reports the memory in use, and the keys that reduce it, cheapest first."""
    stage = "dpo" if isinstance(settings, DpoTable) else "sft"
    longest = audit["longest_kept"]
    unit = "micro_tokens" if settings.micro_tokens else "micro_batch"
    resume: list[str] = []
    redo: list[str] = []
    if less := _less_at_once(settings, longest):
        if unit in settings.binding:
            redo.append(f"[{stage}] {unit} = {less} with --redo {stage}")
        else:
            resume.append(f"[{stage}] {unit} = {less}")
    if table.checkpointing not in ("full", "offload"):
        resume.append('[model] checkpointing = "full"')
    redo.append(f"[prompt] max_tokens below {longest} with --redo sft")
    if table.quantization == "none" and table.lora is not False:
        redo.append('[model] quantization = "nf4" with --redo sft')
    hint = f"Try {', then '.join(resume)}; {RESUME}. Or " if resume else "Try "
    measured = "".join(
        f", checkpointing = {level!r} needs {needed}"
        for level, needed in activation_checkpointing.measured(out).items()
    )
    return StageError(
        f"Out of memory: {_memory()}; the longest row has {longest} tokens, {unit} is {getattr(settings, unit)}{measured}.",
        hint=f"{hint}{', or '.join(redo)}.",
    )


def _less_at_once(settings: TrainTable, longest: int) -> int:
    """A smaller `micro_tokens` or `micro_batch`; 0 if it cannot be smaller."""
    if settings.micro_tokens:
        less = settings.micro_tokens // 2
        return max(less, longest) if settings.micro_tokens > longest else 0
    least = 2 if isinstance(settings, DpoTable) and settings.loss == "kto" else 1
    rows = settings.batch_size // settings.processes
    smaller = range(settings.micro_batch // 2, least - 1, -1)
    return next((size for size in smaller if rows % size == 0), 0)


def _memory() -> str:
    """The device's peak memory use, as text."""
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
    return f"{taken / 2**30:.1f} of {total / 2**30:.1f} GiB of {name} were in use"


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    cpu = isinstance(error, RuntimeError) and _OUT_OF_MEMORY_TEXT.search(
        library_message(error)
    )
    return bool(cpu) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in _DISK_FULL
    return bool(_DISK_FULL_TEXT.search(library_message(error)))


def _first_line(error: BaseException) -> str:
    return (library_message(error).strip() or type(error).__name__).splitlines()[0]
