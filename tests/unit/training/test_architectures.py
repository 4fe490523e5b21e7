"""Small versions of the models of shipped recipes load, learn, and are saved."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from architectures import ARCHITECTURES, table_of, write_model
from training_examples import DPO, PAIRS, ROWS, SFT, metrics, request_in, tensors

from swebench_trainer.training.dpo import train_dpo
from swebench_trainer.training.models.loading import load_model
from swebench_trainer.training.models.table import TARGETS
from swebench_trainer.training.sft import train_sft
from swebench_trainer.training.silence import silence_libraries

LAYERS = 2


@pytest.fixture(scope="module")
def directories(families, tmp_path_factory):
    """A model of each architecture, by name."""
    folder = tmp_path_factory.mktemp("architectures")
    with silence_libraries():
        return {name: write_model(name, families, folder) for name in ARCHITECTURES}


@pytest.fixture(params=ARCHITECTURES)
def directory(request, directories) -> Path:
    return directories[request.param]


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.iterdir() if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(
    ("name", "quantization"),
    [
        ("Qwen2.5-Coder-0.5B-Instruct", "nf4"),
        ("CodeLlama-7b-hf", "none"),
        *(
            pytest.param(name, quantization, marks=pytest.mark.slow)
            for name, quantization in (
                *((n, "nf4") for n in ARCHITECTURES if "0.5B" not in n),
                ("Qwen2.5-Coder-0.5B-Instruct", "none"),
                ("deepseek-coder-6.7b-instruct", "none"),
            )
        ),
    ],
)
def test_an_architecture_learns_in_sft_and_dpo_and_its_adapter_can_be_loaded(
    directories, name, quantization, tmp_path
):
    import torch

    directory = directories[name]
    table = table_of(directory, quantization)
    base = digests(directory)

    sft = SFT.model_copy(update={"epochs": 2})
    start = train_sft(table, ROWS, sft, request_in(tmp_path / "sft"))
    losses = [row["loss"] for row in metrics(tmp_path / "sft")]
    assert losses[-1] < losses[0] - 0.1

    dpo = DPO.model_copy(update={"epochs": 2})
    out = tmp_path / "dpo"
    end = train_dpo(table, PAIRS, dpo, request_in(out, start=start))
    first, *_, last = metrics(out)
    audit = json.loads((out / "audit.json").read_text())
    assert audit["shared_prefix"], audit["prompts_read_twice"]
    assert first["rewards/margins"] == 0.0
    assert last["rewards/margins"] > 0

    for weights in (start, end):
        adapted = {re.sub(r"\.lora_[AB].*", "", name) for name in tensors(weights)}
        assert len(adapted) == LAYERS * len(TARGETS)
        config = json.loads((weights / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == directory.name
        assert {path.name for path in weights.iterdir()} == {
            "adapter_config.json",
            "adapter_model.safetensors",
            "swebench_trainer.json",
        }
    with silence_libraries():
        model = load_model(table, end)
    loaded = {
        name.replace(".default", ""): tensor
        for name, tensor in model.state_dict().items()
        if "lora_" in name
    }
    saved = tensors(end)
    assert loaded.keys() == saved.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in saved.items())
    assert digests(directory) == base


def test_the_published_config_is_read_correctly(directory):
    """transformers 5 stores `rope_theta` and `rope_scaling` under another name."""
    import torch

    _, shape = ARCHITECTURES[directory.name]
    with silence_libraries():
        model = load_model(table_of(directory, "none"))
    config, rotary = model.config, model.model.rotary_emb
    rope = config.rope_parameters
    scaling = shape["rope_scaling"] or {}
    assert rope["rope_theta"] == shape["rope_theta"]
    assert rope["rope_type"] == scaling.get("type", "default")
    size = config.hidden_size // config.num_attention_heads
    frequencies = rope["rope_theta"] ** -(torch.arange(0, size, 2) / size)
    torch.testing.assert_close(
        rotary.inv_freq, frequencies / scaling.get("factor", 1.0)
    )
    assert config.vocab_size % 64
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tied == shape["tie_word_embeddings"]
    attention = model.model.layers[0].self_attn
    assert (attention.q_proj.bias is not None) == (shape["model_type"] == "qwen2")
    ratio = attention.q_proj.out_features // attention.k_proj.out_features
    assert ratio == shape["num_attention_heads"] // shape["num_key_value_heads"]


def test_only_the_linear_layers_have_four_bits(directories):
    import torch
    from bitsandbytes.nn import Linear4bit

    with silence_libraries():
        model = load_model(table_of(directories["Qwen2.5-Coder-0.5B-Instruct"], "nf4"))
    four = [n for n, m in model.named_modules() if isinstance(m, Linear4bit)]
    assert len(four) == LAYERS * len(TARGETS)
    assert model.lm_head.weight.dtype == torch.float32
    assert model.lm_head.weight is model.model.embed_tokens.weight
