"""Reproducible pseudo-random draws by name.

A draw depends only on the names it is made for, so adding an instance to a run does not
change the draws of the others. None of this is meant for secrets.
"""

from __future__ import annotations

import hashlib
import random

from swebench_trainer.store.digest import digest


def draw_key(*names: object) -> str:
    """A uniformly distributed text: sorting by it shuffles reproducibly."""
    return digest(list(names))


def draw_fraction(*names: object) -> float:
    """A number in [0, 1)."""
    return int(draw_key(*names), 16) / 16**16


def draw_index(count: int, *names: object) -> int:
    """A number from 0 to `count - 1`."""
    return int(draw_key(*names), 16) % count


def draw_seed(*names: object) -> int:
    """A seed of 48 bits."""
    key = "/".join(map(str, names)).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:6], "big")


def generator(*names: object) -> random.Random:
    """A random number generator of its own for these names."""
    return random.Random(" ".join(map(str, names)))  # noqa: S311 - not a secret
