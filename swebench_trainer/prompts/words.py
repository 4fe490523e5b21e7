"""Words of code and of prose about code, for finding one by the other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

_NAME = re.compile(r"[^\W\d_]\w*|\d{2,}")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\da-zA-Z_]+")


def words(text: str) -> Iterator[str]:
    """Every name in lower case, and the parts of `snake_case` and `camelCase` beside it.

    >>> list(words("HTTPServer.get_url2"))
    ['httpserver', 'http', 'server', 'get_url2', 'get', 'url']
    """
    return chain.from_iterable(map(words_of, names(text)))


def names(text: str) -> list[str]:
    """The names in a text as they stand, numbers of two digits or more among them."""
    return _NAME.findall(text)


def words_of(name: str) -> tuple[str, ...]:
    """The words of one name."""
    parts = _PART.findall(name)
    whole = name.rstrip("_").lower()
    several = parts if len(parts) > 1 else ()
    return tuple(word for word in (whole, *map(str.lower, several)) if len(word) > 1)
