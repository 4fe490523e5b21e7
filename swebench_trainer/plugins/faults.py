"""Calls into plugin code: what it raises becomes one error type that names the plugin."""

from __future__ import annotations

import errno
import logging
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swebench_trainer.errors import PluginFault, TrainerError
from swebench_trainer.secrets import without_secrets

log = logging.getLogger(__name__)

HINT = (
    "This is a bug in the plugin: report it to its author. Finished work is kept, and "
    "the same command resumes the run. The log of this attempt has the traceback."
)
MAX_MESSAGE = 500
"""Most characters of a plugin's error message to show."""
SLOW_CALL = 600.0
"""Seconds after which the log names a plugin call that has not returned."""


def plugin_fault(who: str, problem: str) -> PluginFault:
    """The error for a plugin that broke its contract.

    Args:
        who: The plugin, as messages name it.
        problem: What it did, to follow its name in a sentence.
    """
    return PluginFault(f"{who} {problem}.", hint=HINT)


@contextmanager
def plugin_call(
    who: str, method: str, allowed: tuple[type[Exception], ...] = (TrainerError,)
) -> Iterator[None]:
    """Run plugin code, and turn errors that the contract forbids into `PluginFault`.

    Args:
        who: The plugin, as messages name it.
        method: Name of the function that is called.
        allowed: Errors that the contract allows; they pass through.
    """
    try:
        with slow_call_logged(who, method):
            yield
    except allowed:
        raise
    except (Exception, SystemExit) as error:  # plugin code can raise anything
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # not the plugin's fault: the stage reports which disk is full
        raise plugin_fault(who, f"failed in {method}: {one_line(error)}") from error


@contextmanager
def slow_call_logged(who: str, method: str) -> Iterator[None]:
    """Log one line if the body takes longer than `SLOW_CALL`."""
    message = "%s has been running %s for %.0f seconds"
    timer = threading.Timer(SLOW_CALL, log.warning, (message, who, method, SLOW_CALL))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def one_line(error: BaseException) -> str:
    """An error's type, message and the source line that raised it, in one line."""
    text = " ".join(without_secrets(str(error)).split())[:MAX_MESSAGE]
    summary = f"{type(error).__name__}: {text}" if text else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return summary
    return f"{summary} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"


def type_name(value: object) -> str:
    """The type of a value with its article, for messages: `a list`, or `None`."""
    return "None" if value is None else f"a {type(value).__name__}"
