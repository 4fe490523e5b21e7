from __future__ import annotations

import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import pytest
from training_examples import FULL

from swebench_trainer.data.generated.tasks import draw_tasks
from swebench_trainer.training.models import tiny
from swebench_trainer.training.models.loading import load_model, load_tokenizer


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
    }


@pytest.fixture(scope="module")
def from_another_process(tmp_path_factory, warm_server) -> Path:
    """The built-in models as another process writes them, in directories by name."""
    folder = tmp_path_factory.mktemp("another")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    writer = warm_server.start(["write_tiny_models", str(folder)], folder, environment)
    _, errors = writer.communicate()
    assert writer.returncode == 0, errors
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", tiny.MODELS)
def test_another_process_writes_the_same_bytes(tmp_path, from_another_process, name):
    tiny.write_tiny(tmp_path / "model", name)
    assert digests(tmp_path / "model") == digests(from_another_process / name)


def test_writing_a_model_does_not_change_the_random_state(tmp_path):
    import torch

    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    tiny.write_tiny(tmp_path / "model")
    assert torch.equal(torch.rand(1), expected)


def test_the_directory_is_created_once_and_completely(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = tiny.tiny_directory()
    stamp = (first / "config.json").stat().st_mtime_ns
    assert tiny.tiny_directory() == first
    assert (first / "config.json").stat().st_mtime_ns == stamp
    assert {path.suffix for path in first.parent.iterdir()} == {"", ".lock"}


def test_runs_that_start_together_write_the_model_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    write, written = tiny.write_tiny, []

    def counted(folder: Path, name: str) -> None:
        written.append(folder)
        write(folder, name)

    monkeypatch.setattr(tiny, "write_tiny", counted)
    with ThreadPoolExecutor(2) as runs:
        folders = set(runs.map(lambda _: tiny.tiny_directory(), range(2)))
    assert len(written) == 1
    assert (folders.pop() / "model.safetensors").exists()
    assert not folders


@pytest.mark.parametrize("name", tiny.MODELS)
def test_a_built_in_model_is_small_and_accepts_long_prompts(name):
    model = load_model(FULL.model_copy(update={"name": name}))
    assert sum(p.numel() for p in model.parameters()) < 1_000_000
    assert model.config.max_position_embeddings >= 4096
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("text", [bytes(range(256)).decode("latin-1"), "naïve 漢字 🦉"])
def test_every_byte_has_a_token(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_the_small_tokenizer_fits_generated_tasks():
    """A task needs few tokens, so `small_corpus.txt` still resembles the tasks."""
    corpus = files("swebench_trainer.training.models").joinpath("small_corpus.txt")
    tokenizer = load_tokenizer(FULL.model_copy(update={"name": tiny.SMALL}))
    known = set(re.findall(r"[a-z]+", corpus.read_text()))
    tasks = list(draw_tasks(7, 1, 0, 39))
    text = "".join(
        task.instance.problem_statement + next(iter(task.files.values()))
        for task in tasks
    )
    words = re.findall(r"[a-z]+", text)
    assert sum(word in known for word in words) > 0.95 * len(words)
    assert len(tokenizer(text)["input_ids"]) < 260 * len(tasks)
