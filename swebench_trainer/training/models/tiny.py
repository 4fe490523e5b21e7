"""Random-weight Qwen2 models that need no network and no GPU.

They know nothing. `builtin:tiny` learns a handful of rows by heart in under a minute
on two cores: enough to see every stage of a recipe at work. `builtin:small` has a layer
more and a tokenizer for the `generated` source, whose tasks it learns to solve, unseen
ones too. The tokenizers are trained on texts that come with the package, so a model is
the same for every recipe. On disk it is an ordinary Hugging Face model.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from errno import EIO, ENOSPC
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from swebench_trainer.errors import library_message
from swebench_trainer.store.cache import user_cache

SEED = 0
EOS, PAD = "<|im_end|>", "<|endoftext|>"
SPECIAL = (PAD, "<|im_start|>", EOS)
ARCHITECTURE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "initializer_range": 0.05,
}
"""What the models have in common."""
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Tiny:
    """A model that is made, not loaded.

    Attributes:
        corpus: File beside this one with the text that its tokenizer is trained on.
        layers: Blocks of the network.
        vocabulary: Tokens of its tokenizer.
    """

    corpus: str
    layers: int
    vocabulary: int


NAME, SMALL = "builtin:tiny", "builtin:small"
MODELS = {
    NAME: Tiny("tiny_corpus.txt", layers=2, vocabulary=1024),
    # Of few tokens it sees each often, and learns the sooner to copy them.
    SMALL: Tiny("small_corpus.txt", layers=3, vocabulary=600),
}
"""The models, by what `[model] name` says."""
THREADS = 1
"""Threads that compute them: their matrices are too small to share, and threads that
wait for each other on a busy machine are many times slower than one."""


def tiny_directory(name: str = NAME) -> Path:
    """The directory of a model, which is made on first use (about a second).

    It lies under `$XDG_CACHE_HOME/swebench-trainer`, by the digest of all that
    decides its bytes. Runs that make it at the same time do not disturb each other.
    """
    target = user_cache(name.removeprefix("builtin:"), _digest(name))
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
        write_tiny(partial, name)
        try:
            partial.rename(target)
        except OSError:  # another run was faster; its bytes are the same
            shutil.rmtree(partial)
    return target


def write_tiny(directory: Path, name: str = NAME) -> None:
    """Writes config, weights and tokenizer, the same bytes every time."""
    import torch
    from safetensors import SafetensorError
    from transformers import Qwen2Config, Qwen2ForCausalLM

    model = MODELS[name]
    tokenizer = _train_tokenizer(model)
    tokenizer.save_pretrained(directory)
    config = Qwen2Config(
        vocab_size=model.vocabulary,
        num_hidden_layers=model.layers,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        **ARCHITECTURE,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = Qwen2ForCausalLM(config)
    try:
        network.save_pretrained(directory)
    except SafetensorError as error:  # it does not say which error of the system it was
        full = "No space left" in library_message(error)
        raise OSError(ENOSPC if full else EIO, str(error), str(directory)) from error


def _corpus(model: Tiny) -> str:
    return files(__package__).joinpath(model.corpus).read_text(encoding="utf-8")


def _train_tokenizer(model: Tiny) -> Any:
    from transformers import Qwen2Tokenizer

    blank = Qwen2Tokenizer(eos_token=EOS, pad_token=PAD, unk_token=None)
    tokenizer = blank.train_new_from_iterator(
        [_corpus(model)],
        vocab_size=model.vocabulary,
        new_special_tokens=list(SPECIAL),
        show_progress=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.model_max_length = ARCHITECTURE["max_position_embeddings"]
    return tokenizer


@cache
def _digest(name: str = NAME) -> str:
    """Digest of whatever decides the bytes, the libraries included."""
    libraries = [f"{name} {version(name)}" for name in ("torch", "transformers")]
    model = MODELS[name]
    made_of = [_corpus(model), model.layers, model.vocabulary, SEED, ARCHITECTURE]
    parts = [*made_of, CHAT_TEMPLATE, libraries]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
