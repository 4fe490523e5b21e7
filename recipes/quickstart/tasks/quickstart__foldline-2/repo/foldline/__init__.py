"""Plain-text layout: paragraphs, tables and words."""

from .grid import table
from .para import fill, indent, shorten, wrap
from .words import join, ordinal, plural, slug, snake

__all__ = [
    "fill",
    "indent",
    "join",
    "ordinal",
    "plural",
    "shorten",
    "slug",
    "snake",
    "table",
    "wrap",
]
__version__ = "1.0"
