"""What a plugin raises becomes one kind of error, which says whose fault it is."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swebench_trainer.errors import PluginFault, TrainerError
from swebench_trainer.plugins.masks import masked

HINT = (
    "It is a fault of the plugin: tell its author. What the run has done is kept, and "
    "the same command goes on with it; the log of the attempt has the traceback."
)
LONGEST = 500
"""Characters of a stranger's message that are shown."""


def fault(who: str, what: str) -> PluginFault:
    """The error for `who` having done `what`."""
    return PluginFault(f"{who} {what}.", hint=HINT)


@contextmanager
def faults_of(
    who: str, where: str, allowed: tuple[type[Exception], ...] = (TrainerError,)
) -> Iterator[None]:
    """Turns what a stranger's code raises into a `PluginFault` that names it.

    Args:
        who: The plugin, for people.
        where: Which of its functions was called.
        allowed: What the contract lets it raise.
    """
    try:
        yield
    except allowed:
        raise
    except (Exception, SystemExit) as error:  # a stranger's code can raise anything
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # nobody's fault: the stage says which disk is full
        raise fault(who, f"failed in {where}: {told(error)}") from error


def told(error: BaseException) -> str:
    """An error in a line: its type, its message, and the line of code that raised it."""
    text = " ".join(masked(str(error)).split())[:LONGEST]
    words = f"{type(error).__name__}: {text}" if text else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return words
    return f"{words} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"


def described(value: object) -> str:
    """What a value is, for a message that says what it ought to have been."""
    return "None" if value is None else f"a {type(value).__name__}"
