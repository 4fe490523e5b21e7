from __future__ import annotations

import json

import pytest

from swebench_trainer.errors import DataError
from swebench_trainer.store.predictions import FILES, Prediction, read_predictions

ROW = {"instance_id": "a__b-1", "model_name_or_path": "m", "model_patch": "diff"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.jsonl", "\n" + json.dumps(ROW) + "\r\n\n"),
        ("p.json", "\ufeff" + json.dumps([ROW], indent=2)),
        ("p.json", json.dumps({"a__b-1": ROW})),
        ("p.json", json.dumps({"a__b-1": {k: ROW[k] for k in list(ROW)[1:]}})),
    ],
    ids=["jsonl", "list", "object", "object by id"],
)
def test_every_form_gives_the_same_prediction(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    (found,) = read_predictions(path)
    place = f"{path}, line 2" if name.endswith("l") else f"{path}, entry 1"
    assert found == Prediction("a__b-1", "m", "diff", place)


def test_no_patch_is_an_empty_patch(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({**ROW, "model_patch": None}))
    assert read_predictions(path)[0].patch == ""


def test_unicode_line_separators_do_not_end_a_row(tmp_path):
    path = tmp_path / "p.jsonl"
    row = {**ROW, "model_patch": "+a\u2028b\x85c"}
    path.write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    assert read_predictions(path)[0].patch == "+a\u2028b\x85c"


def test_broken_json_is_named_by_file_and_line(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text((json.dumps(ROW) + "\n") * 16 + '{"instance_id": "a\n')
    with pytest.raises(DataError, match=r"p\.jsonl, line 17"):
        read_predictions(path)


@pytest.mark.parametrize("key", sorted(ROW))
def test_a_missing_key_is_named_with_its_line(tmp_path, key):
    path = tmp_path / "p.jsonl"
    row = {name: value for name, value in ROW.items() if name != key}
    path.write_text(json.dumps(ROW) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=f"line 2: {key}"):
        read_predictions(path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.json", "[\n{]", "line 2"),
        ("p.json", '"text"', "neither a list"),
        ("p.json", "[" * 100_000, "p.json: invalid JSON"),
        ("p.jsonl", "[" * 100_000, "line 1: invalid JSON"),
        ("p.json", f'[{{"x": {"9" * 5000}}}]', "p.json: invalid JSON"),
        ("p.json", json.dumps([ROW, 7]), "entry 2: not a JSON object"),
        ("p.json", json.dumps({"a": 7}), "entry 1: not a JSON object"),
        ("p.jsonl", "[]", "line 1: not a JSON object"),
        ("p.jsonl", json.dumps({**ROW, "instance_id": 7}), "line 1: instance_id"),
        (
            "p.jsonl",
            json.dumps({**ROW, "model_patch": ["x"]}),
            "line 1: model_patch",
        ),
    ],
)
def test_other_content_is_refused(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_predictions(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match="absent"):
        read_predictions(tmp_path / "absent.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        read_predictions(tmp_path / "binary.jsonl")


def submission(folder, files: dict[str, str]):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return folder


@pytest.mark.parametrize("name", FILES)
def test_a_submission_is_read_from_its_file(tmp_path, name):
    text = json.dumps(ROW) if name.endswith("l") else json.dumps({"a__b-1": ROW})
    folder = submission(
        tmp_path / "20250101_system",
        {
            name: text,
            "metadata.yaml": "name: system",
            "logs/a__b-1/patch.diff": "another",
            "trajs/a__b-1.traj": "{}",
        },
    )
    (found,) = read_predictions(folder)
    assert (found.instance_id, found.model, found.patch) == tuple(ROW.values())
    assert found.place.startswith(str(folder / name))


@pytest.mark.parametrize("logs", ["logs/", ""])
def test_without_a_file_the_logs_are_read(tmp_path, logs):
    """Those of a submission, or the harness's own of a run of a model."""
    folder = submission(
        tmp_path / "20250101_system",
        {
            f"{logs}b__c-2/patch.diff": "-x\r\n+y\r\n",
            f"{logs}b__c-2/report.json": "{}",
            f"{logs}a__b-1/patch.diff": "",
            f"{logs}c__d-3/run_instance.log": "no patch was graded",
        },
    )
    found = read_predictions(folder)
    assert [(p.instance_id, p.model, p.patch) for p in found] == [
        ("a__b-1", "20250101_system", ""),
        ("b__c-2", "20250101_system", "-x\r\n+y\r\n"),
    ]


def test_a_fault_in_a_submission_is_named_by_file_and_line(tmp_path):
    text = json.dumps(ROW) + "\n" + json.dumps({"instance_id": "b"})
    folder = submission(tmp_path, {"all_preds.jsonl": text})
    with pytest.raises(DataError, match=r"all_preds\.jsonl, line 2: model_name"):
        read_predictions(folder)


def test_a_patch_that_is_no_text_is_named(tmp_path):
    folder = submission(tmp_path, {"logs/a__b-1/patch.diff": ""})
    (folder / "logs/a__b-1/patch.diff").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"a__b-1/patch\.diff is not UTF-8"):
        read_predictions(folder)


def test_a_folder_of_something_else_is_refused(tmp_path):
    folder = submission(tmp_path, {"verified/system/preds.json": "{}"})
    with pytest.raises(DataError, match=r"has no predictions: .*preds\.json") as caught:
        read_predictions(folder)
    assert "evaluation/verified/<submission>" in caught.value.hint
