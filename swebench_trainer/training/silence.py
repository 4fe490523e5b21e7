"""Keeps log lines and progress bars of the training libraries off the terminal."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LIBRARIES = ("transformers", "trl", "peft", "accelerate", "bitsandbytes", "datasets")


@contextmanager
def silence_libraries() -> Iterator[None]:
    """Silences log lines below errors, progress bars and deprecation notices.

    Our own checks raise errors for what matters in them; deprecation notices address
    programmers who call the libraries, not users.
    """
    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
