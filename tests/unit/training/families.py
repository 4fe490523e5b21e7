"""Tokenizers of the model families, built during the tests.

Everything that determines the form of a prompt equals the published tokenizer: the class
that transformers loads, normalizer and pre-tokenizer, special tokens, BOS and EOS, and the
chat template. Only the vocabulary is small and trained here.
"""

# ruff: noqa: RUF001  (DeepSeek writes its tokens with fullwidth bars)
from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from swebench_trainer.training.models.loading import load_tokenizer
from swebench_trainer.training.models.table import HfTable

TEMPLATES = Path(__file__).parent / "templates"
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        end: Token that ends an answer.
        begin: BOS token of prompts, if any.
        chat: Whether the tokenizer has a chat template.
    """

    kind: str
    end: str
    begin: str = ""
    chat: bool = True


FAMILIES = {
    "qwen2.5-coder-instruct": Family("qwen", "<|im_end|>"),
    "deepseek-coder-instruct": Family("deepseek", "<|EOT|>", "<｜begin▁of▁sentence｜>"),
    "deepseek-coder-base": Family(
        "deepseek", "<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>", chat=False
    ),
    "codellama-instruct": Family("codellama", "</s>", "<s>"),
    "codellama-base": Family("codellama", "</s>", "<s>", chat=False),
}


def build(name: str, folder: Path) -> Any:
    """Writes the family's files and loads them like the model of a recipe."""
    family = FAMILIES[name]
    backend, config, model_type = _KINDS[family.kind](family)
    if family.chat:
        config["chat_template"] = (TEMPLATES / f"{name}.jinja").read_text()
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    architecture = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}
    model = {"model_type": model_type, "architectures": [architecture[model_type]]}
    (folder / "config.json").write_text(json.dumps(model))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return load_tokenizer(HfTable(name=str(folder), quantization="none"))


def _corpus() -> list[str]:
    text = files("swebench_trainer.training.models").joinpath("tiny_corpus.txt")
    return text.read_text(encoding="utf-8").splitlines(keepends=True)


def _qwen(_: Family) -> tuple[Tokenizer, dict[str, Any], str]:
    words = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    backend = _byte_level([pre_tokenizers.Split(Regex(words), "isolated")])
    backend.normalizer = normalizers.NFC()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    _add(backend, special, special=True)
    _add(backend, ["<tool_call>", "<|fim_prefix|>", "<|file_sep|>"], special=False)
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_bos_token": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "additional_special_tokens": special[1:],
    }
    return backend, config, "qwen2"


def _deepseek(family: Family) -> tuple[Tokenizer, dict[str, Any], str]:
    patterns = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+")
    splits = [pre_tokenizers.Split(Regex(p), "isolated") for p in patterns]
    backend = _byte_level([*splits, pre_tokenizers.Digits(individual_digits=True)])
    begin, end = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
    _add(backend, [begin, end], special=True)
    _add(backend, ["<｜fim▁hole｜>", "<|User|>", "<|Assistant|>"], special=False)
    _add(backend, ["<|EOT|>"], special=True)
    config = {
        # Its name on the Hub, although it is byte-level BPE.
        "tokenizer_class": "LlamaTokenizerFast",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": begin,
        "eos_token": family.end,
        "pad_token": end,
        "unk_token": None,
    }
    return backend, config, "llama"


def _codellama(_: Family) -> tuple[Tokenizer, dict[str, Any], str]:
    special = ["<unk>", "<s>", "</s>"]
    trained = Tokenizer(
        models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    # In this family a newline is a byte, never part of a longer token.
    trained.train_from_iterator([line.rstrip("\n") for line in _corpus()], trainer)
    written = json.loads(trained.to_str())
    written["added_tokens"] = written["added_tokens"][: len(special)]
    backend = Tokenizer.from_str(json.dumps(written))
    backend.pre_tokenizer = None
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    _add(backend, ["▁<PRE>", "▁<MID>", "▁<SUF>", "▁<EOT>"], special=True)
    config = {
        "tokenizer_class": "CodeLlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    return backend, config, "llama"


def _byte_level(splits: list[Any]) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*splits, bytes_])
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=BYTES, show_progress=False
    )
    backend.train_from_iterator(_corpus(), trainer)
    return backend


def _add(backend: Tokenizer, tokens: list[str], *, special: bool) -> None:
    backend.add_tokens(
        [AddedToken(token, normalized=False, special=special) for token in tokens]
    )


_KINDS = {"qwen": _qwen, "deepseek": _deepseek, "codellama": _codellama}
