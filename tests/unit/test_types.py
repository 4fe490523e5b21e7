"""Values of a run and their rows, in the form of today and of older files."""

from __future__ import annotations

import json

import pytest
from pydantic import TypeAdapter

from swebench_trainer.store.jsonl import dump
from swebench_trainer.types import (
    NO_OP,
    AnswerRef,
    Candidate,
    Extraction,
    ExtractionOutcome,
    Pair,
    StaticChecks,
    as_row,
    from_row,
)

OLD_EXTRACTIONS = {
    "ok": Extraction(),
    "repaired:fences+prose": Extraction(
        ExtractionOutcome.REPAIRED, ("fences", "prose")
    ),
    "failed:no answer": Extraction(ExtractionOutcome.NO_CHANGE, reason="no answer"),
    "failed:nothing changes": Extraction(
        ExtractionOutcome.NO_CHANGE, reason="nothing changes"
    ),
    "failed:no patch was recorded": Extraction(
        ExtractionOutcome.NO_CHANGE, reason="no patch was recorded"
    ),
    "failed:a: b": Extraction(ExtractionOutcome.MALFORMED, reason="a: b"),
    "no-op": NO_OP,
    "whatever a plugin wrote": Extraction(),
}
OLD_CHECKS = [
    ([], StaticChecks()),
    (["applies"], StaticChecks(applies=True)),
    (["does not apply"], StaticChecks(applies=False)),
    (
        ["applies", "does not parse: a b.py", "undefined name 'x': c.py"],
        StaticChecks(applies=True, unparsable=("a b.py",)),
    ),
]


def decoded(row: dict[str, object]) -> list[Candidate]:
    """The candidate of a row that went through JSON, read in both ways."""
    row = json.loads(dump(row))
    return [from_row(Candidate, row), TypeAdapter(Candidate).validate_python(row)]


def old_row(**fields: object) -> dict[str, object]:
    return {
        "instance_id": "i",
        "sample": 0,
        "model": "m",
        "text": "",
        "patch": "",
        **fields,
    }


@pytest.mark.parametrize(("text", "extraction"), OLD_EXTRACTIONS.items())
def test_extraction_strings_of_older_files_and_plugins_are_parsed(
    text, extraction
) -> None:
    assert Candidate("i", 0, "m", "", "", text).extraction == extraction
    for candidate in decoded(old_row(extraction=text)):
        assert candidate.extraction == extraction


@pytest.mark.parametrize(("phrases", "checks"), OLD_CHECKS)
def test_check_phrases_of_older_files_and_plugins_are_parsed(phrases, checks) -> None:
    assert Candidate("i", 0, "m", "", "", checks=tuple(phrases)).checks == checks
    for candidate in decoded(old_row(checks=phrases)):
        assert candidate.checks == checks


@pytest.mark.parametrize("extraction", OLD_EXTRACTIONS.values())
@pytest.mark.parametrize("checks", [checks for _, checks in OLD_CHECKS])
def test_candidates_survive_their_row(extraction, checks) -> None:
    candidate = Candidate("i", 0, "m", "t", "p", extraction, checks=checks)
    assert decoded(as_row(candidate)) == [candidate, candidate]


@pytest.mark.parametrize("wrong", [None, 3, ["ok"]])
def test_an_extraction_of_another_type_is_refused(wrong) -> None:
    with pytest.raises(TypeError):
        Candidate("i", 0, "m", "", "", wrong)


@pytest.mark.parametrize(
    ("text", "is_gold", "sample"),
    [
        ("gold", True, None),
        ("sample:0", False, 0),
        ("sample:12", False, 12),
        ("", False, None),
        ("sample:", False, None),
        ("sample:x", False, None),
        ("sample:²", False, None),
        ("elsewhere:1", False, None),
    ],
)
def test_a_pair_parses_the_sources_that_plugins_give_as_text(text, is_gold, sample):
    source = Pair("i", "p", "c", "r", "s", text, "sample:0", "fails").chosen_source
    assert (source.is_gold, source.sample) == (is_gold, sample)


def test_sources_of_a_pair_survive_their_row():
    pair = Pair(
        "i", "p", "c", "r", "s", AnswerRef.gold(), AnswerRef.of_sample(3), "fails"
    )
    row = json.loads(dump(as_row(pair)))
    assert (row["chosen_source"], row["rejected_source"]) == ("gold", "sample:3")
    for read in (from_row(Pair, row), TypeAdapter(Pair).validate_python(row)):
        assert read == pair
        assert read.chosen_source.is_gold and read.rejected_source.sample == 3
