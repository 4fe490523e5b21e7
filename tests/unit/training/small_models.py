"""Small models with the architectures of large ones, whose attention has an effect."""

from __future__ import annotations

from pathlib import Path

from swebench_trainer.training.models.loading import load_trainable
from swebench_trainer.training.models.table import HfTable
from swebench_trainer.training.silence import silence_libraries

PAD = 0


def write_model(family: str, folder: Path) -> str:
    """Writes a small model of the family, whose output depends on its attention."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        family,
        vocab_size=96,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=None,
        initializer_range=0.15,
        max_position_embeddings=256,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return str(folder)


def open_model(table: HfTable, *, checkpointing: bool):
    """The model as the trainer prepares it, and its base."""
    import torch
    from trl.trainer.utils import add_fused_lm_head

    with silence_libraries():
        model = load_trainable(table, None, seed=0)
    base = model.get_base_model() if table.lora else model
    for name, weight in model.named_parameters():
        if "lora_B" in name:  # initially zero, so that no other weight has a gradient
            torch.nn.init.normal_(weight, std=0.1, generator=torch.manual_seed(1))
    if checkpointing:
        model.activation_checkpointing_enable()
        if table.lora:
            model.enable_input_require_grads()
    add_fused_lm_head(base)
    return model.train(), base
