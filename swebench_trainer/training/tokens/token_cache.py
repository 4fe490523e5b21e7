"""Cache of token ids, so that the same rows are encoded once.

The key of a file covers the texts and everything that determines their ids: the
tokenizer's content, its chat template, our encoding code and the versions of the
libraries. If a file is damaged or cannot be written, the rows are encoded again.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swebench_trainer.store.cache import mark_used, partial_path, user_cache, write_lock
from swebench_trainer.store.digest import digest_path
from swebench_trainer.training.tokens import encoding

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LIBRARIES = ("transformers", "tokenizers", "jinja2")

Ids = tuple[list[list[int]], list[bool]]
"""Token sequences of all rows, and one flag per row."""


def cached_ids(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Sequence[str]],
    encode: Callable[[], Ids],
) -> Ids:
    """Return the result of `encode` for some rows, from the cache if possible.

    Args:
        tokenizer: The tokenizer of `encode`.
        texts: The texts of each row, one per token sequence.
        encode: Encodes all rows.
    """
    if (identity := _identity(tokenizer)) is None:
        return encode()
    place = user_cache("tokens", f"{_digest([identity, *texts])}.zip")
    mark_used(place)
    found = _load(place, sum(map(len, texts)), len(texts))
    if found is None:
        found = encode()
        _save(found, place)
    return found


def _identity(tokenizer: PreTrainedTokenizerBase) -> list[Any] | None:
    """Return everything that determines a tokenizer's ids; `None` if unknown."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    return [
        backend.to_str(),
        tokenizer.chat_template,
        type(tokenizer).__name__,
        tokenizer.eos_token_id,
        sorted(encoding.special_ids(tokenizer)),
        digest_path(Path(encoding.__file__)),
        [version(name) for name in _LIBRARIES],
    ]


def _digest(value: Any) -> str:
    # Model output may have lone surrogates, which only ASCII escapes can represent.
    return hashlib.sha256(json.dumps(value).encode("ascii")).hexdigest()[:32]


def _load(place: Path, sequences: int, rows: int) -> Ids | None:
    """Return cached ids; `None` if they are missing or damaged."""
    import numpy as np

    try:
        # Opened here: numpy does not close a file that is not an archive.
        with place.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            ids, ends, flags = (file[name] for name in ("ids", "ends", "flags"))
            flat, bounds = ids.tolist(), [0, *ends.tolist()]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if (len(ends), len(flags)) != (sequences, rows) or bounds[-1] != len(flat):
        return None
    return [flat[start:end] for start, end in pairwise(bounds)], flags.tolist()


def _save(found: Ids, place: Path) -> None:
    """Cache ids. If they cannot be written, the next run encodes the rows again."""
    import numpy as np

    sequences, flags = found
    try:
        with write_lock(place):
            with partial_path(place).open("wb") as file:
                np.savez(
                    file,
                    ids=np.fromiter((i for ids in sequences for i in ids), np.int32),
                    ends=np.cumsum([len(ids) for ids in sequences]),
                    flags=np.array(flags, bool),
                )
            partial_path(place).replace(place)
    except OSError:
        return
