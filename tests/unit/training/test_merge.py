from __future__ import annotations

import json
import shutil
import subprocess
from collections import namedtuple
from pathlib import Path

import pytest
from training_examples import FULL, LORA, QLORA, ROWS, SFT, request_in

from swebench_trainer.errors import PrerequisiteError, RecipeError
from swebench_trainer.store.jsonl import write_json, write_rows
from swebench_trainer.training.models import merge as merging
from swebench_trainer.training.models.merge import Trained, find_trained, merge
from swebench_trainer.training.models.tiny import tiny_directory
from swebench_trainer.training.sft import train_sft
from swebench_trainer.types import as_row

TEXT = [(row.prompt, row.completion) for row in ROWS]


def a_run(folder: Path, table) -> Path:
    """What is left of a run with SFT alone."""
    write_json(folder / "run.json", {})
    write_json(
        folder / "recipe.resolved.json", {"model": table.model_dump(mode="json")}
    )
    write_rows(folder / "stages/prepare/sft.jsonl", map(as_row, ROWS))
    train_sft(table, ROWS, SFT, request_in(folder / "stages" / "sft"))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has trained an adapter on 4-bit weights."""
    return a_run(tmp_path_factory.mktemp("runs") / "mine", QLORA)


def logits_of(folder: Path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    batch = [merging._encode(tokenizer, *row) for row in TEXT]
    with torch.no_grad():
        return merging._logits(model, batch)


@pytest.mark.parametrize("way", ["bf16", "dequantized"])
def test_what_is_written_is_a_model_with_the_reported_drift(tmp_path, run, way):
    from swebench_trainer.training.models.loading import load_model
    from swebench_trainer.training.silence import silence_libraries

    found = find_trained(run)
    *_, drift = merge(found, tmp_path / "out", way)
    with silence_libraries():
        tokenizer = merging.load_tokenizer(found.table)
        trained = load_model(found.table, found.adapter)
    batch = [merging._encode(tokenizer, *row) for row in TEXT]
    again = merging._drift(
        way, merging._logits(trained, batch), logits_of(tmp_path / "out")
    )
    assert drift.way == way
    assert again.largest == pytest.approx(drift.largest, rel=1e-3, abs=1e-5)
    assert again.divergence == pytest.approx(drift.divergence, rel=1e-2, abs=1e-7)
    assert drift.tokens > 50


def test_the_weights_that_it_was_trained_on_are_nearer_than_the_base(tmp_path, run):
    far, near = merge(find_trained(run), tmp_path / "out")
    assert (far.way, near.way) == ("bf16", "dequantized")
    assert near.largest < 1e-3 < far.largest
    assert near.mean < far.mean / 10
    assert near.divergence < far.divergence
    assert near.agreement == 1.0


def test_an_adapter_of_full_weights_drifts_by_rounding_alone(tmp_path):
    run = a_run(tmp_path / "mine", LORA)
    (drift,) = merge(find_trained(run), tmp_path / "out")
    assert drift.way == "bf16"
    assert drift.largest < 1e-3
    with pytest.raises(RecipeError, match="not trained on 4-bit"):
        merge(find_trained(run), tmp_path / "other", "dequantized")


def test_the_directory_is_plain_and_its_tokenizer_is_the_bases(tmp_path, run):
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


def test_a_run_a_stage_and_an_adapter_of_it_are_the_same(run):
    stage = run / "stages" / "sft"
    found = [find_trained(place) for place in (run, stage, stage / "adapter")]
    assert found[0] == found[1] == found[2]
    assert found[0].table.quantization == "nf4"
    assert list(found[0].rows) == TEXT


def test_an_adapter_elsewhere_is_compared_on_a_text_of_ours(tmp_path, run):
    shutil.copytree(run / "stages" / "sft" / "adapter", tmp_path / "mine")
    found = find_trained(tmp_path / "mine")
    assert found.table.name == "builtin:tiny"
    assert found.rows == merging.BUILT_IN
    *_, drift = merge(found, tmp_path / "out")
    assert drift.tokens > 20


def test_an_adapter_elsewhere_knows_in_how_many_bits_it_was_trained(tmp_path):
    run = a_run(tmp_path / "mine", LORA)
    shutil.copytree(run / "stages" / "sft" / "adapter", tmp_path / "copy")
    found = find_trained(tmp_path / "copy")
    assert found.table.quantization == "none"
    (tmp_path / "copy/swebench_trainer.json").unlink()
    with pytest.raises(RecipeError, match="4 bits") as caught:
        find_trained(tmp_path / "copy")
    subprocess.run(
        caught.value.hint.split(": ", 1)[1].split(", or")[0], shell=True, check=True
    )
    assert find_trained(tmp_path / "copy").table.quantization == "nf4"


def test_a_base_that_was_moved_is_named(run):
    assert find_trained(run, "/elsewhere/base").table.name == "/elsewhere/base"


def test_whole_weights_are_nothing_to_merge(tmp_path):
    run = a_run(tmp_path / "mine", FULL)
    for place in (run, run / "stages" / "sft", run / "stages" / "sft" / "model"):
        with pytest.raises(RecipeError, match="nothing to merge"):
            find_trained(place)


def test_what_is_no_training_is_named(tmp_path):
    with pytest.raises(RecipeError, match="neither a run directory nor an adapter"):
        find_trained(tmp_path)
    write_json(tmp_path / "run.json", {})
    write_json(tmp_path / "stages/sft/audit.json", {"rows": 4})
    with pytest.raises(RecipeError, match="no finished training"):
        find_trained(tmp_path)


def test_a_directory_that_is_there_is_left_alone(tmp_path, run):
    (tmp_path / "out").mkdir()
    with pytest.raises(RecipeError, match="there already"):
        merge(find_trained(run), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_full_disk_is_known_before_anything_is_loaded(tmp_path, run, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1_000_000))
    monkeypatch.setattr(merging, "load_model", lambda *_: pytest.fail("loaded"))
    with pytest.raises(PrerequisiteError, match=r"needs 0\.0 GB"):
        merge(find_trained(run), tmp_path / "deep" / "out")
    assert not (tmp_path / "deep").exists()


def test_a_merge_that_is_stopped_leaves_nothing(tmp_path, run, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(merging.durable, "move", stop)
    with pytest.raises(KeyboardInterrupt):
        merge(find_trained(run), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_drift_is_what_it_says():
    import torch

    one = [torch.tensor([[0.0, 1.0], [2.0, 0.0]])]
    other = [torch.tensor([[0.0, 3.0], [0.0, 1.0]])]
    drift = merging._drift("bf16", one, other)
    assert (drift.largest, drift.mean, drift.agreement) == (2.0, 1.25, 0.5)
    p, q = one[0].softmax(-1), other[0].softmax(-1)
    expected = float((p * (p / q).log()).sum(-1).mean())
    assert drift.divergence == pytest.approx(expected)


def test_the_command_shows_the_drift_of_each_way(tmp_path, run, capsys):
    from swebench_trainer.cli import run_command_line

    out = tmp_path / "out"
    assert run_command_line(["merge", str(run), str(out), "--base", "bf16"]) == 0
    shown = capsys.readouterr().out
    assert shown.index("dequantized") < shown.rindex("bf16")
    assert "same next token" in shown
    assert (out / "model.safetensors").is_file()
    assert run_command_line(["merge", str(run), str(out)]) == 2


def test_the_ways_of_an_adapter_begin_with_how_it_was_trained():
    assert Trained(Path(), QLORA, ()).ways == ("dequantized", "bf16")
    assert Trained(Path(), LORA, ()).ways == ("bf16",)
