"""A small reader and writer of INI-style configuration."""

from .config import Config
from .reader import ParseError, loads
from .writer import dumps, quote

__all__ = ["Config", "ParseError", "dumps", "loads", "quote"]
__version__ = "1.0"
