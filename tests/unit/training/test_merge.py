from __future__ import annotations

import json
import shutil
import subprocess
from collections import namedtuple
from pathlib import Path

import pytest
from training_examples import FULL, LORA, QLORA

from swebench_trainer.errors import PrerequisiteError, RecipeError
from swebench_trainer.store.jsonl import write_json
from swebench_trainer.training.models import merge as merging
from swebench_trainer.training.models.merge import Trained, find_trained, merge
from swebench_trainer.training.models.tiny import tiny_directory
from swebench_trainer.training.silence import silence_libraries


def a_run(folder: Path, table, weights: Path) -> Path:
    """A run directory with a finished SFT stage."""
    write_json(folder / "run.json", {})
    write_json(
        folder / "recipe.resolved.json", {"model": table.model_dump(mode="json")}
    )
    shutil.copytree(weights.parent, folder / "stages" / "sft")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, qlora_adapter: Path) -> Path:
    """A run that has trained an adapter on 4-bit weights."""
    return a_run(tmp_path_factory.mktemp("runs") / "mine", QLORA, qlora_adapter)


@pytest.fixture(scope="module")
def lora_run(tmp_path_factory: pytest.TempPathFactory, sft_adapter: Path) -> Path:
    """A run that has trained an adapter on unquantized weights."""
    return a_run(tmp_path_factory.mktemp("runs") / "mine", LORA, sft_adapter)


@pytest.mark.parametrize("base", ["bf16", "dequantized"])
def test_the_written_model_has_the_reported_agreement(tmp_path, run, base):
    import torch
    from transformers import AutoModelForCausalLM

    from swebench_trainer.training.models.loading import load_model, load_tokenizer

    found = find_trained(run)
    merged = merge(found, tmp_path / "out", base)
    with silence_libraries():
        ids = merging.encode_prompt(load_tokenizer(found.table), merging._SAMPLE)
        trained = load_model(found.table, found.adapter)
        written = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
        rows = torch.tensor([ids])
        with torch.no_grad():
            expected, actual = (
                model(input_ids=rows).logits.argmax(-1) for model in (trained, written)
            )
    assert merged.base == base
    assert len(ids) > 50
    assert merged.agreement == pytest.approx(
        float((actual == expected).float().mean()), abs=0.02
    )


def test_the_default_base_is_that_of_the_training_and_agrees_exactly(tmp_path, run):
    default = merge(find_trained(run), tmp_path / "default")
    other = merge(find_trained(run), tmp_path / "other", "bf16")
    assert (default.base, other.base) == ("dequantized", "bf16")
    assert default.agreement == 1.0
    assert 0 < other.agreement <= 1.0


def test_an_adapter_trained_on_unquantized_weights_is_merged_into_them(
    lora_run, tmp_path
):
    merged = merge(find_trained(lora_run), tmp_path / "out")
    assert (merged.base, merged.agreement) == ("bf16", 1.0)
    with pytest.raises(RecipeError, match="not trained on 4-bit"):
        merge(find_trained(lora_run), tmp_path / "other", "dequantized")


def test_the_directory_has_only_the_model_and_the_tokenizer_of_the_base(tmp_path, run):
    out = tmp_path / "new" / "out"
    merge(find_trained(run), out)
    base = tiny_directory()
    names = {path.name for path in base.glob("tokenizer*")}
    assert names
    for name in (*names, "chat_template.jinja"):
        assert (out / name).read_bytes() == (base / name).read_bytes()
    config = json.loads((out / "config.json").read_text())
    assert "quantization_config" not in config
    assert str(tmp_path) not in json.dumps(config)
    assert str(base) not in json.dumps(config)
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert not list(out.glob("adapter*"))


def test_run_stage_and_adapter_directories_name_the_same_adapter(run):
    stage = run / "stages" / "sft"
    found = [find_trained(place) for place in (run, stage, stage / "adapter")]
    assert found[0] == found[1] == found[2]
    assert found[0].table.quantization == "nf4"


def test_an_adapter_outside_a_run_names_its_base_model(tmp_path, run):
    shutil.copytree(run / "stages" / "sft" / "adapter", tmp_path / "mine")
    found = find_trained(tmp_path / "mine")
    assert (found.table.name, found.table.quantization) == ("builtin:tiny", "nf4")
    assert merge(found, tmp_path / "out").agreement == 1.0


def test_an_adapter_outside_a_run_records_its_quantization(tmp_path, lora_run):
    shutil.copytree(lora_run / "stages" / "sft" / "adapter", tmp_path / "copy")
    found = find_trained(tmp_path / "copy")
    assert found.table.quantization == "none"
    (tmp_path / "copy/swebench_trainer.json").unlink()
    with pytest.raises(RecipeError, match="4 bits") as caught:
        find_trained(tmp_path / "copy")
    command = caught.value.hint.removeprefix("Run ").split(", or")[0]
    subprocess.run(command, shell=True, check=True)
    assert find_trained(tmp_path / "copy").table.quantization == "nf4"


def test_a_moved_base_model_can_be_named(run):
    assert find_trained(run, "/elsewhere/base").table.name == "/elsewhere/base"


def test_a_whole_model_cannot_be_merged(tmp_path, sft_model):
    run = a_run(tmp_path / "mine", FULL, sft_model)
    for place in (run, run / "stages" / "sft", run / "stages" / "sft" / "model"):
        with pytest.raises(RecipeError, match="Nothing to merge"):
            find_trained(place)


def test_a_directory_without_a_finished_training_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="neither a run directory nor an adapter"):
        find_trained(tmp_path)
    write_json(tmp_path / "run.json", {})
    write_json(tmp_path / "stages/sft/audit.json", {"rows": 4})
    with pytest.raises(RecipeError, match="no finished training"):
        find_trained(tmp_path)


def test_an_existing_directory_is_left_unchanged(tmp_path, run):
    (tmp_path / "out").mkdir()
    with pytest.raises(RecipeError, match="already exists"):
        merge(find_trained(run), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_full_disk_is_reported_before_any_model_is_loaded(tmp_path, run, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1_000_000))
    monkeypatch.setattr(merging, "load_model", lambda *_: pytest.fail("loaded"))
    with pytest.raises(PrerequisiteError, match=r"needs 0\.0 GB"):
        merge(find_trained(run), tmp_path / "deep" / "out")
    assert not (tmp_path / "deep").exists()


def test_an_interrupted_merge_leaves_no_files(tmp_path, run, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(merging.durable, "move", stop)
    with pytest.raises(KeyboardInterrupt):
        merge(find_trained(run), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_command_reports_base_and_agreement(tmp_path, run, capsys):
    from swebench_trainer.__main__ import run_command_line

    out = tmp_path / "out"
    assert run_command_line(["merge", str(run), str(out), "--base", "bf16"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "merged into bf16" in shown
    assert "same next token" in shown
    assert (out / "model.safetensors").is_file()
    assert run_command_line(["merge", str(run), str(out)]) == 2


def test_the_first_base_of_an_adapter_is_the_one_it_was_trained_on():
    assert Trained(Path(), QLORA).bases == ("dequantized", "bf16")
    assert Trained(Path(), LORA).bases == ("bf16",)
