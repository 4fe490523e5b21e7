"""`builtin:tiny`: a random-weight Qwen2 that needs no network and no GPU.

It knows nothing, and it learns a handful of rows by heart in under a minute on
two cores: enough to see every stage of a recipe at work. Its tokenizer is
trained on a small text that comes with the package, so the model is the same
for every recipe. On disk it is an ordinary Hugging Face model.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from errno import EIO, ENOSPC
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from swebench_trainer.store.kept import user_cache

NAME = "builtin:tiny"
"""What `[model] name` says."""

SEED = 0
VOCABULARY = 1024
EOS, PAD = "<|im_end|>", "<|endoftext|>"
SPECIAL = (PAD, "<|im_start|>", EOS)
ARCHITECTURE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "initializer_range": 0.05,
}
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_directory() -> Path:
    """The directory of the model, which is made on first use (about a second).

    It lies under `$XDG_CACHE_HOME/swebench-trainer`, by the digest of all that
    decides its bytes. Runs that make it at the same time do not disturb each other.
    """
    target = user_cache("tiny", _digest())
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
        write_tiny(partial)
        try:
            partial.rename(target)
        except OSError:  # another run was faster; its bytes are the same
            shutil.rmtree(partial)
    return target


def write_tiny(directory: Path) -> None:
    """Writes config, weights and tokenizer, the same bytes every time."""
    import torch
    from safetensors import SafetensorError
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = _train_tokenizer(_corpus())
    tokenizer.save_pretrained(directory)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        **ARCHITECTURE,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = Qwen2ForCausalLM(config)
    try:
        model.save_pretrained(directory)
    except SafetensorError as error:  # it does not say which error of the system it was
        full = "No space left" in str(error)
        raise OSError(ENOSPC if full else EIO, str(error), str(directory)) from error


def _corpus() -> str:
    return files(__package__).joinpath("tiny_corpus.txt").read_text(encoding="utf-8")


def _train_tokenizer(text: str) -> Any:
    from transformers import Qwen2Tokenizer

    blank = Qwen2Tokenizer(eos_token=EOS, pad_token=PAD, unk_token=None)
    tokenizer = blank.train_new_from_iterator(
        [text],
        vocab_size=VOCABULARY,
        new_special_tokens=list(SPECIAL),
        show_progress=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.model_max_length = ARCHITECTURE["max_position_embeddings"]
    return tokenizer


def _digest() -> str:
    """Digest of whatever decides the bytes, the libraries included."""
    libraries = [f"{name} {version(name)}" for name in ("torch", "transformers")]
    parts = [_corpus(), SEED, VOCABULARY, ARCHITECTURE, CHAT_TEMPLATE, libraries]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
