"""Coordination between the processes of one training; usually there is only one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def size() -> int:
    """Number of processes that train together."""
    from torch import distributed

    joined = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if joined else 1


def is_first() -> bool:
    """Whether this is the first process, which writes all files."""
    from torch import distributed

    return size() == 1 or distributed.get_rank() == 0


def barrier() -> None:
    """Waits until every process has reached this point."""
    from torch import distributed

    if size() > 1:
        distributed.barrier()


def leave() -> None:
    """Ends the process group; otherwise its threads would outlive Python."""
    from torch import distributed

    barrier()
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def run_on_first(function: Callable[[], T]) -> T:
    """Calls a function in the first process, and returns its result in all of them."""
    from torch import distributed

    if size() == 1:
        return function()
    result = [function() if is_first() else None]
    distributed.broadcast_object_list(result)
    return result[0]  # type: ignore[return-value]  # the first process has set it
