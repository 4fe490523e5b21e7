"""Small models with the architectures of the models of shipped recipes.

Each has the features of its family: the ratio of query heads to key and value heads, tied
or untied embeddings, the rotary positions of its `config.json` on the Hub, biases, and a
vocabulary that is larger than its tokenizer's and not a multiple of 64.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from swebench_trainer.training.models.table import HfTable

QWEN = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "rope_theta": 1000000.0,
    "rope_scaling": None,
    "rms_norm_eps": 1e-06,
    "max_position_embeddings": 32768,
    "sliding_window": 131072,
    "use_sliding_window": False,
}
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "attention_bias": False,
    "hidden_size": 128,
    "intermediate_size": 344,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 16384,
    "tie_word_embeddings": False,
}
CODELLAMA = {
    **LLAMA,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000,
    "rope_scaling": None,
}
DEEPSEEK = {
    **LLAMA,
    "rms_norm_eps": 1e-06,
    "rope_theta": 100000,
    "rope_scaling": {"factor": 4.0, "type": "linear"},
}
QWEN_7B = {
    **QWEN,
    "hidden_size": 224,
    "intermediate_size": 1184,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
}
QWEN_SMALL = {
    **QWEN,
    "hidden_size": 224,
    "intermediate_size": 1216,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen2.5-Coder-7B-Instruct": ("qwen2.5-coder-instruct", QWEN_7B),
    "Qwen2.5-Coder-0.5B-Instruct": ("qwen2.5-coder-instruct", QWEN_SMALL),
    "deepseek-coder-6.7b-instruct": ("deepseek-coder-instruct", DEEPSEEK),
    "deepseek-coder-6.7b-base": ("deepseek-coder-base", DEEPSEEK),
    "CodeLlama-7b-Instruct-hf": ("codellama-instruct", CODELLAMA),
    "CodeLlama-7b-hf": ("codellama-base", CODELLAMA),
}
"""By model: the family of the tokenizer, and `config.json` without its sizes."""


def write_model(name: str, families: dict[str, Any], folder: Path) -> Path:
    """Writes a model of random bf16 weights and its tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    family, shape = ARCHITECTURES[name]
    tokenizer = families[family]
    directory = shutil.copytree(tokenizer.name_or_path, folder / name)
    config = {
        **shape,
        "num_hidden_layers": 2,
        "vocab_size": (len(tokenizer) // 64 + 1) * 64 + 8,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "initializer_range": 0.05,
        "torch_dtype": "bfloat16",
    }
    path = directory / "config.json"
    path.write_text(json.dumps(config))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory))
    model.to(torch.bfloat16).save_pretrained(directory)
    path.write_text(json.dumps(config))  # as published, by older libraries
    return directory


def table_of(directory: Path, quantization: str) -> HfTable:
    lora = {"rank": 16, "alpha": 32}
    return HfTable(name=str(directory), quantization=quantization, lora=lora)
