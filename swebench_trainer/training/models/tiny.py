"""Random-weight Qwen2 models that need no network and no GPU.

`builtin:tiny` memorizes a handful of rows in under a minute on two cores: enough to see
every stage of a recipe at work. `builtin:small` has one more layer and a tokenizer for
the `generated` source, whose tasks it learns to solve, including unseen ones. The
tokenizers are trained on texts in this package, so a model is the same for every recipe.
On disk it is an ordinary Hugging Face model.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from errno import EIO, ENOSPC
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from swebench_trainer.errors import library_message
from swebench_trainer.store.cache import cached, user_cache

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
"""Configuration that the models share."""
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Tiny:
    """A built-in model.

    Attributes:
        corpus: File in this package with the training text of the tokenizer.
        layers: Number of transformer blocks.
        vocabulary: Number of tokens of the tokenizer.
    """

    corpus: str
    layers: int
    vocabulary: int


NAME, SMALL = "builtin:tiny", "builtin:small"
MODELS = {
    NAME: Tiny("tiny_corpus.txt", layers=2, vocabulary=1024),
    # With fewer tokens it sees each more often, and learns sooner to copy them.
    SMALL: Tiny("small_corpus.txt", layers=3, vocabulary=600),
}
"""The models by `[model] name`."""
THREADS = 1
"""Threads to compute with: the matrices are too small to split, and on a busy machine
threads that wait for each other are many times slower than one."""


def tiny_directory(name: str = NAME) -> Path:
    """The directory of a model, which is created on first use (about a second).

    It is in `$XDG_CACHE_HOME/swebench-trainer`, named by the digest of everything that
    determines its bytes. Several runs can create it at the same time.
    """
    target = user_cache(name.removeprefix("builtin:"), _digest(name))
    return cached(target, lambda partial, _: write_tiny(partial, name))


def write_tiny(directory: Path, name: str = NAME) -> None:
    """Writes config, weights and tokenizer, with the same bytes every time."""
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
    except SafetensorError as error:  # it has no errno
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
    """Digest of everything that determines the bytes, including library versions."""
    libraries = [f"{name} {version(name)}" for name in ("torch", "transformers")]
    model = MODELS[name]
    made_of = [_corpus(model), model.layers, model.vocabulary, SEED, ARCHITECTURE]
    parts = [*made_of, CHAT_TEMPLATE, libraries]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
