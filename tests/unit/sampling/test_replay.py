from __future__ import annotations

import json
from pathlib import Path

import pytest

from swebench_trainer.contracts import SampleRequest, TrainRequest
from swebench_trainer.errors import DataError, PluginError
from swebench_trainer.recipe.models import DpoTable, SftTable, semantic_settings
from swebench_trainer.sampling.replay import ReplayBackend, ReplayTable


def prediction(instance_id: str, patch: str, model: str = "recorder") -> dict[str, str]:
    return {
        "instance_id": instance_id,
        "model_name_or_path": model,
        "model_patch": patch,
    }


def write(path: Path, *rows: dict[str, str]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def request(instance_id: str, sample: int) -> SampleRequest:
    return SampleRequest(instance_id, sample, "Fix it.", 100, 0.8, 0.95, 0)


def test_the_nth_sample_is_the_nth_prediction_over_all_files(tmp_path):
    paths = (
        write(tmp_path / "0.jsonl", prediction("a", "a0"), prediction("b", "b0")),
        write(
            tmp_path / "1.jsonl",
            prediction("a", "a1", "another"),
            prediction("a", "a2"),
        ),
    )
    sampler = ReplayBackend(ReplayTable(path=paths)).open_sampler(None, batch_size=1)
    requests = [request(i, n) for i in "abc" for n in range(4)]
    samples = list(sampler.sample(requests))
    assert [(s.instance_id, s.sample, s.patch) for s in samples] == [
        ("a", 0, "a0"),
        ("a", 1, "a1"),
        ("a", 2, "a2"),
        ("b", 0, "b0"),
    ]
    assert [s.model for s in samples] == ["recorder", "another", "recorder", "recorder"]
    assert samples[0].text == "a0"


def test_files_and_submissions_can_be_combined(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    write(first / "all_preds.jsonl", prediction("a", "a0"), prediction("b", "b0"))
    (second / "logs" / "a").mkdir(parents=True)
    (second / "logs" / "a" / "patch.diff").write_text("a1")
    third = write(tmp_path / "0.jsonl", prediction("a", "a2"))
    table = ReplayTable(path=(str(first), str(second), third))
    sampler = ReplayBackend(table).open_sampler(None, batch_size=1)
    samples = list(sampler.sample([request(i, n) for i in "ab" for n in range(4)]))
    assert [(s.instance_id, s.sample, s.patch, s.model) for s in samples] == [
        ("a", 0, "a0", "recorder"),
        ("a", 1, "a1", "second"),
        ("a", 2, "a2", "recorder"),
        ("b", 0, "b0", "recorder"),
    ]


def test_a_folder_of_predictions_is_fingerprinted_by_content(tmp_path):
    write(tmp_path / "all_preds.jsonl", prediction("a", "a0"))
    before = semantic_settings(ReplayTable(path=str(tmp_path)))
    assert semantic_settings(ReplayTable(path=str(tmp_path))) == before
    write(tmp_path / "all_preds.jsonl", prediction("a", "a1"))
    assert semantic_settings(ReplayTable(path=str(tmp_path))) != before


def test_an_empty_prediction_is_an_answer_without_a_patch(tmp_path):
    path = write(tmp_path / "p.jsonl", prediction("a", ""))
    sampler = ReplayBackend(ReplayTable(path=path)).open_sampler(None, batch_size=1)
    (sample,) = sampler.sample([request("a", 0)])
    assert sample.patch == ""


def test_the_check_reads_the_files(tmp_path):
    path = write(tmp_path / "p.jsonl", prediction("a", "x"), {"instance_id": "b"})
    with pytest.raises(DataError, match="line 2"):
        ReplayBackend(ReplayTable(path=path)).check()


def test_training_raises_with_a_hint(tmp_path):
    backend = ReplayBackend(ReplayTable(path=str(tmp_path / "p.jsonl")))
    train = TrainRequest(tmp_path, None, 100, 0, lambda *_: None)
    for call in (
        lambda: backend.train_sft([], SftTable(), train),
        lambda: backend.train_dpo([], DpoTable(), train),
        lambda: backend.open_sampler(tmp_path, batch_size=1),
    ):
        with pytest.raises(PluginError, match='use = "hf"'):
            call()
