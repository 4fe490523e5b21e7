"""Words of code and of prose about code, for finding one by the other."""

from __future__ import annotations

import re
from collections.abc import Iterator

_NAME = re.compile(r"[^\W\d_]\w*|\d{2,}")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\da-zA-Z_]+")


def words(text: str) -> Iterator[str]:
    """Every name in lower case, and the parts of `snake_case` and `camelCase` beside it.

    >>> list(words("HTTPServer.get_url2"))
    ['httpserver', 'http', 'server', 'get_url2', 'get', 'url']
    """
    for match in _NAME.finditer(text):
        name = match[0].rstrip("_")
        whole = name.lower()
        if len(whole) > 1:
            yield whole
        parts = _PART.findall(name)
        if len(parts) > 1:
            yield from (part.lower() for part in parts if len(part) > 1)
