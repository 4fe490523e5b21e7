"""What the processes of one training have to agree on; one process is the usual case."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def size() -> int:
    """How many processes train together."""
    from torch import distributed

    joined = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if joined else 1


def writes() -> bool:
    """Whether this process is the one that writes files: the first."""
    from torch import distributed

    return size() == 1 or distributed.get_rank() == 0


def wait() -> None:
    """Waits until every process is here."""
    from torch import distributed

    if size() > 1:
        distributed.barrier()


def leave() -> None:
    """Ends what joins the processes, once all are done: its threads would outlive Python."""
    from torch import distributed

    wait()
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def once(find: Callable[[], T]) -> T:
    """What the first process finds, for all of them; the others wait for it."""
    from torch import distributed

    if size() == 1:
        return find()
    found = [find() if writes() else None]
    distributed.broadcast_object_list(found)
    return found[0]  # type: ignore[return-value]  # the first has found it
