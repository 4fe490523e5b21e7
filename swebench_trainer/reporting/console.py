"""Plain lines on a terminal.

Names and logs come from strangers: nothing in them is markup or a terminal control
sequence.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Column


def open_console() -> Console:
    """A console on standard output; lines are not wrapped if it is not a terminal."""
    from rich.console import Console

    return Console(soft_wrap=not sys.stdout.isatty())


def numbers(*names: str) -> list[Column | str]:
    """Columns of a table that are aligned right."""
    from rich.table import Column

    return [Column(name, justify="right") for name in names]


def print_line(console: Console, text: str) -> None:
    """Prints a line verbatim: brackets are not markup."""
    console.print(printable(text), markup=False, highlight=False)


def printable(text: str) -> str:
    """Replaces every character that a terminal could interpret as a command."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def visible(text: str) -> str:
    """Spells out each character that a terminal would hide or interpret."""
    return "".join(
        c if c.isprintable() or c == "\t" else f"<U+{ord(c):04X}>" for c in text
    )
