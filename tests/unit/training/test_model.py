from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError
from training_examples import FULL

from swebench_trainer.errors import PrerequisiteError, RecipeError
from swebench_trainer.recipe.models import semantic_settings
from swebench_trainer.training.models.loading import check_model, load_tokenizer
from swebench_trainer.training.models.table import HfTable


def model_directory(folder: Path, **config: object) -> HfTable:
    (folder / "config.json").write_text(json.dumps(config))
    return HfTable(name=str(folder), quantization="none")


def test_four_bit_weights_need_adapters():
    with pytest.raises(ValidationError, match='quantization = "none"'):
        HfTable(name="builtin:tiny", lora=False)


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({"attention": "sdpa"}, False),
        ({"checkpointing": "full"}, False),
        ({"quantization": "nf4"}, True),
    ],
)
def test_keys_that_only_change_speed_or_memory_are_not_in_fingerprints(change, counts):
    changed = FULL.model_copy(update=change)
    assert (semantic_settings(changed) != semantic_settings(FULL)) is counts


def test_checking_loads_no_torch():
    script = (
        "import sys; from swebench_trainer.hf import HfBackend; "
        "from swebench_trainer.training.models.table import HfTable; "
        "HfBackend(HfTable(name='builtin:tiny')).check(); "
        "assert not {'torch', 'transformers', 'trl', 'peft', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["BertForMaskedLM"], "model_type": "bert"},
        {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True},
    ],
    ids=["bert", "t5"],
)
def test_a_model_that_cannot_generate_text_is_refused(tmp_path, config):
    table = model_directory(tmp_path, **config)
    with pytest.raises(RecipeError, match="not a causal language model"):
        check_model(table)


@pytest.mark.parametrize(
    "name", ["Qwen2ForCausalLM", "GPT2LMHeadModel", "Gemma3ForConditionalGeneration"]
)
def test_decoders_are_accepted(tmp_path, name):
    check_model(model_directory(tmp_path, architectures=[name]))


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(RecipeError, match="absent does not exist"):
        check_model(HfTable(name=str(tmp_path / "absent")))


def test_a_directory_without_a_config_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"no config\.json"):
        check_model(HfTable(name=str(tmp_path)))


def test_a_config_that_is_not_json_is_an_error(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RecipeError, match=r"Cannot read the config\.json"):
        check_model(HfTable(name=str(tmp_path)))


def test_an_adapter_as_base_model_is_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(RecipeError, match="is an adapter"):
        check_model(HfTable(name=str(tmp_path)))


def test_an_impossible_model_name_is_refused():
    with pytest.raises(RecipeError, match="one/two/three"):
        check_model(HfTable(name="one/two/three"))


def test_without_a_network_the_hint_names_alternatives():
    script = (
        "from swebench_trainer.training.models.loading import check_model\nfrom swebench_trainer.training.models.table import HfTable\n"
        "from swebench_trainer.errors import PrerequisiteError\n"
        "try: check_model(HfTable(name='Qwen/not-in-any-cache'))\n"
        "except PrerequisiteError as e: print(e.message, e.hint)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "cannot be reached" in done.stdout
    assert "builtin:tiny" in done.stdout


def test_missing_bitsandbytes_is_reported_before_loading(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(PrerequisiteError, match="bitsandbytes"):
        check_model(HfTable(name="builtin:tiny"))


def test_missing_weights_are_a_recipe_error(tmp_path):
    from swebench_trainer.training.models.loading import load_model

    table = model_directory(
        tmp_path, architectures=["Qwen2ForCausalLM"], model_type="qwen2"
    )
    with pytest.raises(RecipeError, match="Cannot load"):
        load_model(table)


def test_an_unavailable_attention_is_an_error():
    from swebench_trainer.training.models.loading import load_model

    table = FULL.model_copy(update={"attention": "flash_attention_2"})
    with pytest.raises((PrerequisiteError, RecipeError), match="attention"):
        load_model(table)


def test_a_tokenizer_always_has_a_pad_token(tmp_path):
    from swebench_trainer.training.models import tiny

    tiny.write_tiny(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings["pad_token"] = None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(HfTable(name=str(tmp_path), quantization="none"))
    assert tokenizer.pad_token_id is not None
