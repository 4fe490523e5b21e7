"""Search terms of code and of prose about code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

_NAME = re.compile(r"[^\W\d_]\w*|\d{2,}")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\da-zA-Z_]+")


def terms(text: str) -> Iterator[str]:
    """Every name in lower case, followed by its `snake_case` and `camelCase` parts.

    >>> list(terms("HTTPServer.get_url2"))
    ['httpserver', 'http', 'server', 'get_url2', 'get', 'url']
    """
    return chain.from_iterable(map(terms_of, names(text)))


def names(text: str) -> list[str]:
    """The names in a text, unchanged, including numbers of two or more digits."""
    return _NAME.findall(text)


def terms_of(name: str) -> tuple[str, ...]:
    """The terms of one name."""
    parts = _PART.findall(name)
    whole = name.rstrip("_").lower()
    several = parts if len(parts) > 1 else ()
    return tuple(term for term in (whole, *map(str.lower, several)) if len(term) > 1)
