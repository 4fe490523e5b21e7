"""Which activations are computed again in the backward pass instead of being kept.

Keeping all is fastest: with frozen weights a recomputed layer costs half a step more.
`auto` finds the cheapest level that fits, by two steps on the largest micro-batch on a
GPU, and by what a forward keeps on a CPU. The choice stands in the stage's directory,
so that a resumed training makes it no second time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from swebench_trainer.store.jsonl import read_json, write_json

Level = Literal["none", "every_4", "every_2", "full", "offload"]
LEVELS: tuple[Level, ...] = ("none", "every_4", "every_2", "full", "offload")
"""From the fastest to the one that needs least memory."""

FILE = "checkpointing.json"
"""In the stage's directory: what `auto` has chosen, and why."""

_SHARE = 0.9
"""Of the free memory: the rest is for fragments and longer neighbours."""

Measure = Callable[[Level], int | None]
"""Bytes that a level needs; `None` if there were not that many."""


@dataclass(frozen=True)
class Choice:
    """What `auto` has chosen.

    Attributes:
        level: The cheapest level that fits; the last that was tried if none does.
        fits: Whether it was seen to.
        tokens: Of the largest micro-batch; with another one a new choice is made.
        limit: Bytes that there are.
        needed: Bytes by level, of those that were tried; `None`: there were not enough.
        reason: Why nothing was tried, if so.
    """

    level: Level
    fits: bool
    tokens: int
    limit: int = 0
    needed: Mapping[str, int | None] | None = None
    reason: str = ""


def cheapest(levels: Sequence[Level], measure: Measure, limit: int) -> Choice:
    """Tries levels until one fits.

    Args:
        levels: In the order of preference.
        measure: Tries one.
        limit: Bytes that there are.
    """
    needed: dict[str, int | None] = {}
    for level in levels:
        needed[level] = found = measure(level)
        if found is not None and found <= limit:
            return Choice(level, True, 0, limit, needed)
    return Choice(levels[-1], False, 0, limit, needed)


def settle(
    trainer: Any, base: Any, wanted: Level | Literal["auto"], out: Path
) -> Level:
    """Sets the level that a training runs with.

    Args:
        trainer: A trainer of TRL before its first step; its arguments leave
            checkpointing off.
        base: Its model without PEFT around it.
        wanted: What the recipe says.
        out: Directory of the stage, where a choice is kept.

    Returns:
        The level; for `auto` the one of `FILE`.
    """
    level = _chosen(trainer, base, out).level if wanted == "auto" else wanted
    apply(base, level)
    return level


def figures(out: Path) -> dict[str, str]:
    """What each level was found to need, for people; empty if none was tried.

    Args:
        out: Directory of the stage.
    """
    choice = read_json(out / FILE) or {}
    return {
        f'with checkpointing = "{level}"': "more than there is"
        if needed is None
        else f"about {needed / 2**30:.1f} GiB"
        for level, needed in (choice.get("needed") or {}).items()
    }


def _chosen(trainer: Any, base: Any, out: Path) -> Choice:
    import torch

    if trainer.accelerator.num_processes > 1:  # all of them must choose the same
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
    """Switches a model of transformers to a level.

    TRL switches checkpointing off and on again around each pass of DPO's reference, on
    without our options; so they are bound to the model.
    """
    vars(base).pop("activation_checkpointing_enable", None)
    if base.is_activation_checkpointing:
        base.activation_checkpointing_disable()
    if level == "none":
        return
    enable, options = base.activation_checkpointing_enable, _options(level)

    def enable_as_chosen(activation_checkpointing_kwargs: Any = None, **_: Any) -> None:
        enable(activation_checkpointing_kwargs, **options)

    base.activation_checkpointing_enable = enable_as_chosen
    base.activation_checkpointing_enable()


def _options(level: Level) -> dict[str, Any]:
    import torch

    every = {"every_2": 2, "every_4": 4}.get(level, 1)
    # Without a GPU everything is in the host's memory already.
    offload = level == "offload" and torch.cuda.is_available()
    return {"every_n_layers": every, "offload": offload}


@contextmanager
def _undisturbed(trainer: Any) -> Iterator[None]:
    """Trial steps leave no trace: random numbers, gradients and metrics are as before."""
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
    """By two steps of each level; the second has the gradients of the first beside it."""
    import torch

    free, _ = torch.cuda.mem_get_info()
    room = free + torch.cuda.memory_reserved()
    optimizer = 8 * _trainable(trainer.model)  # two fp32 moments, which come later

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

    return cheapest(LEVELS, measure, int(_SHARE * room))


def _on_cpu(trainer: Any, batch: Any, small: Any) -> Choice:
    """By what a forward of the shortest row keeps, and so many tokens as there may be.

    A trial of the largest could take the memory that the machine needs to go on.
    """
    kept = _kept_bytes(trainer, small) * _tokens(batch) / _tokens(small)
    needed = int(kept) + 12 * _trainable(trainer.model)  # gradients and two moments
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
    """Bytes that a forward keeps for its backward, weights left out."""
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
    del loss  # until here nothing that was kept is freed and counted again
    return kept


def _trial_batches(trainer: Any) -> tuple[Any, Any]:
    """The micro-batch of the longest rows, and one of the shortest row."""
    collate = trainer.get_train_dataloader().collate_fn
    rows = sorted(range(len(trainer.train_dataset)), key=_length_in(trainer))
    longest = rows[-trainer.args.per_device_train_batch_size :]
    largest, smallest = (
        max(step.get("parts", [step]), key=_tokens)
        for step in (
            collate([trainer.train_dataset[n] for n in numbers])
            for numbers in (longest, rows[:1])
        )
    )
    return largest, smallest


def _length_in(trainer: Any) -> Callable[[int], int]:
    lengths = [
        sum(len(cell) for cell in row.values() if isinstance(cell, list))
        for row in trainer.train_dataset
    ]
    return lengths.__getitem__


def _tokens(batch: Any) -> int:
    """Elements of the largest tensor, which has a place for each token that is read."""
    import torch

    if isinstance(batch, torch.Tensor):
        return batch.numel()
    inner = batch.values() if isinstance(batch, Mapping) else ()
    return max(map(_tokens, inner), default=0)


def _trainable(model: Any) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def free_memory() -> int:
    """Bytes that this process may still take, by the machine and by its control group."""
    import psutil  # accelerate needs it, too

    free = [int(psutil.virtual_memory().available)]
    with suppress(OSError, ValueError):  # no group, or none with a limit ("max")
        group = Path("/sys/fs/cgroup")
        limit, used = (
            int((group / f"memory.{name}").read_text()) for name in ("max", "current")
        )
        free.append(max(0, limit - used))
    return min(free)
