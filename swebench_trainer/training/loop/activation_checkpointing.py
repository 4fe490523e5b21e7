"""Chooses which activations to recompute in the backward pass instead of keeping them.

Keeping all is fastest: with frozen weights, recomputing every layer costs half a step
more. `auto` finds the cheapest level that fits: on a GPU by two steps on the largest
micro-batch, on a CPU by an estimate. The choice is kept in the stage's directory, so that
a resumed training does not measure again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from swebench_trainer.store.jsonl import read_json, write_json
from swebench_trainer.training.loop import guards

Level = Literal["none", "every_4", "every_2", "full", "offload"]
LEVELS: tuple[Level, ...] = ("none", "every_4", "every_2", "full", "offload")
"""From the fastest level to the one that needs the least memory."""

FILE = "checkpointing.json"
"""File in the stage's directory with the choice of `auto` and its measurements."""

_SHARE = 0.9
"""Share of free memory to use; the rest is for fragmentation."""

Measure = Callable[[Level], int | None]
"""Measures the bytes that a level needs; `None` if it ran out of memory."""


@dataclass(frozen=True)
class Choice:
    """The choice of `auto`.

    Attributes:
        level: The cheapest level that fits; the last one that was tried if none does.
        fits: Whether it fit when measured.
        tokens: Tokens of the largest micro-batch; another number needs a new choice.
        limit: Available bytes.
        needed: Bytes of each measured level; `None` if it ran out of memory.
        reason: Why nothing was measured, if so.
    """

    level: Level
    fits: bool
    tokens: int
    limit: int = 0
    needed: Mapping[str, int | None] | None = None
    reason: str = ""


def cheapest(measure: Measure, limit: int) -> Choice:
    """Measures levels, from the fastest, until one fits.

    Args:
        measure: Measures one level.
        limit: Available bytes.
    """
    needed: dict[str, int | None] = {}
    for level in LEVELS:
        needed[level] = found = measure(level)
        if found is not None and found <= limit:
            return Choice(level, True, 0, limit, needed)
    return Choice(LEVELS[-1], False, 0, limit, needed)


def settle(
    trainer: Any, base: Any, wanted: Level | Literal["auto"], out: Path
) -> Level:
    """Chooses and applies the level of a training.

    Args:
        trainer: A TRL trainer before its first step, with checkpointing off.
        base: The transformers model inside PEFT.
        wanted: The recipe's value.
        out: Directory of the stage, where the choice is kept.

    Returns:
        The level.
    """
    level = _choose(trainer, base, out).level if wanted == "auto" else wanted
    apply(base, level)
    return level


def measured(out: Path) -> dict[str, str]:
    """The memory that each measured level needs, as text; empty without a choice.

    Args:
        out: Directory of the stage.
    """
    choice = read_json(out / FILE) or {}
    return {
        level: "more than available"
        if needed is None
        else f"about {needed / 2**30:.1f} GiB"
        for level, needed in (choice.get("needed") or {}).items()
    }


def _choose(trainer: Any, base: Any, out: Path) -> Choice:
    import torch

    if trainer.accelerator.num_processes > 1:  # each could choose another
        return Choice("full", False, 0, reason="several processes")
    with _undisturbed(trainer):
        largest, smallest = _trial_batches(trainer)
        tokens = _tokens(largest)
        kept = read_json(out / FILE)
        if kept and kept["tokens"] == tokens:
            return Choice(**kept)
        if torch.cuda.is_available():
            choice = _on_gpu(trainer, base, largest)
        else:
            choice = _on_cpu(trainer, largest, smallest)
    choice = replace(choice, tokens=tokens)
    write_json(out / FILE, asdict(choice))
    return choice


def apply(base: Any, level: Level) -> None:
    """Applies a level to a transformers model.

    TRL turns checkpointing off and on again around each pass of DPO's reference, without
    our options; so the options are bound to the model's method.
    """
    import torch

    vars(base).pop("activation_checkpointing_enable", None)
    if base.is_activation_checkpointing:
        base.activation_checkpointing_disable()
    if level == "none":
        return
    enable = base.activation_checkpointing_enable
    every = {"every_2": 2, "every_4": 4}.get(level, 1)
    # Without a GPU, activations are already in the host's memory.
    offload = level == "offload" and torch.cuda.is_available()

    def enable_level(activation_checkpointing_kwargs: Any = None, **_: Any) -> None:
        enable(activation_checkpointing_kwargs, every_n_layers=every, offload=offload)

    base.activation_checkpointing_enable = enable_level
    base.activation_checkpointing_enable()


@contextmanager
def _undisturbed(trainer: Any) -> Iterator[None]:
    """Restores random numbers, gradients and metrics after trial steps."""
    import torch

    model = trainer.model
    training = model.training
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        try:
            yield
        finally:
            model.zero_grad(set_to_none=True)
            model.train(training)
            trainer._metrics["train"].clear()
            trainer._total_train_tokens = 0


def _on_gpu(trainer: Any, base: Any, batch: Any) -> Choice:
    """Runs two steps at each level; the second also holds the gradients of the first."""
    import torch

    free, _ = torch.cuda.mem_get_info()
    room = free + torch.cuda.memory_reserved()
    # Two moments in fp32, allocated later.
    optimizer = 8 * guards.require_trainable(trainer.model)

    def measure(level: Level) -> int | None:
        apply(base, level)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        try:
            _steps(trainer, batch, 2)
        except torch.OutOfMemoryError:
            return None
        finally:
            trainer.model.zero_grad(set_to_none=True)
        return torch.cuda.max_memory_allocated() + optimizer

    return cheapest(measure, int(_SHARE * room))


def _on_cpu(trainer: Any, batch: Any, small: Any) -> Choice:
    """Estimates from a forward of the shortest row, scaled to the largest micro-batch.

    A trial of the largest could use up the machine's memory.
    """
    kept = _kept_bytes(trainer, small) * _tokens(batch) / _tokens(small)
    # Gradients and two moments, in fp32.
    needed = int(kept) + 12 * guards.require_trainable(trainer.model)
    limit = int(_SHARE * free_memory())
    level: Level = "none" if needed <= limit else "full"
    return Choice(level, level == "none", 0, limit, {"none": needed})


def _steps(trainer: Any, batch: Any, count: int) -> None:
    trainer.model.train()
    for _ in range(count):
        with trainer.accelerator.autocast():
            loss = trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch))
        loss.backward()


def _kept_bytes(trainer: Any, batch: Any) -> int:
    """Bytes that a forward keeps for its backward, without weights."""
    import torch

    known = {p.untyped_storage().data_ptr() for p in trainer.model.parameters()}
    kept = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            known.add(storage.data_ptr())
            kept += storage.nbytes()
        return tensor

    trainer.model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch))
    del loss  # until here nothing is freed, so no storage is counted twice
    return kept


def _trial_batches(trainer: Any) -> tuple[Any, Any]:
    """A micro-batch of the longest rows, and one of the shortest row."""
    collate = trainer.get_train_dataloader().collate_fn
    lengths = [
        sum(len(cell) for cell in row.values() if isinstance(cell, list))
        for row in trainer.train_dataset
    ]
    rows = sorted(range(len(lengths)), key=lengths.__getitem__)
    longest = rows[-trainer.args.per_device_train_batch_size :]
    largest, smallest = (
        max(step.get("parts", [step]), key=_tokens)
        for step in (
            collate([trainer.train_dataset[n] for n in numbers])
            for numbers in (longest, rows[:1])
        )
    )
    return largest, smallest


def _tokens(batch: Any) -> int:
    """Elements of the largest tensor, which has one for each token."""
    import torch

    if isinstance(batch, torch.Tensor):
        return batch.numel()
    inner = batch.values() if isinstance(batch, Mapping) else ()
    return max(map(_tokens, inner), default=0)


def free_memory() -> int:
    """Bytes still available to this process on the machine and in its cgroup."""
    import psutil  # a dependency of accelerate

    free = [int(psutil.virtual_memory().available)]
    with suppress(OSError, ValueError):  # no cgroup, or one without a limit ("max")
        group = Path("/sys/fs/cgroup")
        limit, used = (
            int((group / f"memory.{name}").read_text()) for name in ("max", "current")
        )
        free.append(max(0, limit - used))
    return min(free)
