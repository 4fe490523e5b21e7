"""Changed files of finished stages, and rows that are JSON but not ours."""

from __future__ import annotations

import json
import os

import pytest

from swebench_trainer.errors import StageError
from swebench_trainer.store import outputs
from swebench_trainer.store.jsonl import dump, each_value, read_json, read_rows
from swebench_trainer.store.rundir import StageDir
from swebench_trainer.types import Candidate, Status, Verdict, as_row


@pytest.fixture
def stage(tmp_path):
    stage = StageDir(tmp_path / "generate")
    stage.begin({"digest": "d"})
    stage.file("candidates.jsonl").write_text('{"n": 1}\n{"n": 2}\n')
    stage.file("model").mkdir()
    stage.file("model", "weights.bin").write_bytes(bytes(100))
    stage.file("logs").mkdir()
    stage.file("logs", "run.log").write_text("x")
    stage.finish({"digest": "d", "figures": {}})
    return stage


def test_an_unchanged_stage_is_accepted_also_after_a_copy(stage):
    stage.require_unchanged()
    os.utime(stage.file("model", "weights.bin"), ns=(1, 1))
    stage.file("logs", "run.log").unlink()
    stage.file("later.json").write_text("{}")
    stage.require_unchanged()


def shorten(path):
    path.write_text('{"n": 1}\n')


def flip(path):
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("candidates.jsonl", shorten, "it has 1 rows instead of 2"),
        ("candidates.jsonl", flip, "its content is different"),
        ("model/weights.bin", flip, "its content is different"),
        ("model/weights.bin", shorten, "it has 9 bytes instead of 100"),
        ("model/weights.bin", os.unlink, "it is missing"),
    ],
)
def test_a_changed_file_is_named_with_the_difference(stage, file, change, message):
    change(stage.file(file))
    with pytest.raises(StageError, match=message) as caught:
        stage.require_unchanged()
    assert file in caught.value.message and "--redo generate" in caught.value.hint
    stage.require_unchanged(lambda name: name != file)
    stage.accept()
    stage.require_unchanged()


def test_large_files_are_digested_only_if_they_were_written_later(stage, monkeypatch):
    monkeypatch.setattr(outputs, "LARGE", 50)
    flip(stage.file("model", "weights.bin"))
    stage.require_unchanged()
    os.utime(stage.file("model", "weights.bin"))
    with pytest.raises(StageError, match="content"):
        stage.require_unchanged()


def test_an_adopted_fingerprint_keeps_the_record_and_its_time(stage, monkeypatch):
    monkeypatch.setattr(outputs, "LARGE", 50)
    weights = stage.file("model", "weights.bin")
    weights.write_bytes(b"\1" * 100)
    stage.adopt({"digest": "e"})
    assert stage.begun() == {"digest": "e"} and stage.finished()["digest"] == "e"
    with pytest.raises(StageError, match="content"):
        stage.require_unchanged()


def test_stages_of_earlier_versions_have_no_record_to_compare(stage):
    manifest = stage.finished()
    del manifest["files"]
    stage.file("stage.json").write_text(json.dumps(manifest))
    shorten(stage.file("candidates.jsonl"))
    stage.require_unchanged()


VERDICT = as_row(Verdict("o__r-1", 0, "m", Status.RESOLVED, report={"a": 1}))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**VERDICT, "status": "resolvee"}, "line 2 is damaged: column 'status'"),
        ({**VERDICT, "report": []}, "line 2 is damaged: column 'report'"),
        ({"instance_id": "o__r-1"}, "line 2 is damaged: column 'sample' is missing"),
        ([VERDICT], "line 2 is damaged: it is not a JSON object"),
        ("resolved", "line 2 is damaged: it is not a JSON object"),
        ({**VERDICT, "status": "unresolved"}, "line 2 is damaged: it contradicts"),
    ],
)
def test_rows_that_are_json_but_not_ours_are_named_with_their_line(
    tmp_path, row, message
):
    path = tmp_path / "verdicts.jsonl"
    path.write_bytes(dump(VERDICT) + dump(row))
    with pytest.raises(StageError, match=message) as caught:
        list(each_value(path, Verdict, lambda v: (v.instance_id, v.sample)))
    assert "--redo" in caught.value.hint


def test_a_repeated_row_is_no_contradiction(tmp_path):
    path = tmp_path / "candidates.jsonl"
    row = as_row(Candidate("o__r-1", 0, "m", "t", "p"))
    path.write_bytes(dump({**row, "extraction": "ok", "checks": "ok"} | row) * 2)
    assert len(list(each_value(path, Candidate, lambda c: c.sample))) == 2


def test_a_list_instead_of_an_object_is_damage(tmp_path):
    (tmp_path / "run.json").write_text("[1]")
    with pytest.raises(StageError, match=r"run\.json is damaged"):
        read_json(tmp_path / "run.json")
    (tmp_path / "rows.jsonl").write_text("[1]\n")
    with pytest.raises(StageError, match=r"rows\.jsonl, line 1 is damaged"):
        read_rows(tmp_path / "rows.jsonl")
