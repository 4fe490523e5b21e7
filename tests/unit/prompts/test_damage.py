"""Damaged patches reach the right tree or none, whatever the damage."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest
from damage import (
    DAMAGES,
    UNKNOWABLE,
    Case,
    Gold,
    Memory,
    applied,
    between,
    gold_of,
    variants,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from swebench_trainer.answers.diffs import ExtractedPatch
from swebench_trainer.answers.forms import extract_patch
from swebench_trainer.types import Extraction, StaticChecks

UNTOUCHED = (
    "nothing",
    "fences and prose",
    "prose alone",
    "tags",
    "a draft in thoughts",
)
"""Damages around the patch, which comes back byte by byte."""
MOVING = ("line numbers", "counts and line numbers", "no context", "several at once")
"""Damages after which another place may have the same lines, where git looks first."""


def extracted(case: Case) -> ExtractedPatch:
    tree = Memory(case.base)
    return extract_patch("diff", case.answer, tree, finish=case.finish)


def outcome(case: Case) -> str:
    patch = extracted(case).patch
    tree = applied(case.base, patch) if patch else None
    if tree in (None, case.base):
        return "refused"
    return "right" if tree == case.expected else "wrong"


@st.composite
def golds(draw: st.DrawFn, *, distinct: bool) -> Gold:
    """Edits of a file or two; lines are all different, or few."""

    def line() -> str:
        indent = " " * draw(st.sampled_from([0, 4, 4, 8, 10]))
        number = draw(st.integers(0, 10**9)) if distinct else draw(st.integers(0, 3))
        return f"{indent}x = {number}"

    base, after = {"other/a.py": b"x\n"}, {"other/a.py": b"x\n"}
    for path in draw(st.sampled_from([["src/a.py"], ["src/a.py", "src/b.py"]])):
        lines = [line() for _ in range(draw(st.integers(8, 30)))]
        assume(not distinct or len(set(lines)) == len(lines))
        base[path] = "".join(f"{text}\n" for text in lines).encode()
        for at in sorted(draw(st.sets(st.integers(0, len(lines) - 1), min_size=1, max_size=3)), reverse=True):  # fmt: skip
            lines[at : at + draw(st.integers(0, 1))] = [line() for _ in range(draw(st.integers(0, 2)))]  # fmt: skip
        after[path] = "".join(f"{text}\n" for text in lines).encode()
        assume(base[path] != after[path])
    return between(base, after)


@pytest.mark.parametrize("kind", DAMAGES)
@given(gold=golds(distinct=True), seed=st.integers(0, 9))
@settings(max_examples=4, deadline=None)
def test_where_lines_are_distinct_the_tree_is_right(kind, gold, seed) -> None:
    case = DAMAGES[kind](random.Random(seed), gold)
    if case:
        assert outcome(case) == ("refused" if kind in UNKNOWABLE else "right")


@pytest.mark.parametrize("kind", sorted(set(DAMAGES) - set(MOVING)))
@given(gold=golds(distinct=False), seed=st.integers(0, 9))
@settings(max_examples=4, deadline=None)
def test_where_lines_repeat_the_tree_is_never_wrong(kind, gold, seed) -> None:
    case = DAMAGES[kind](random.Random(seed), gold)
    if case:
        assert outcome(case) != "wrong"


@pytest.mark.parametrize("kind", UNTOUCHED)
@given(gold=golds(distinct=False), seed=st.integers(0, 9))
@settings(max_examples=4, deadline=None)
def test_a_patch_that_applies_is_not_touched(kind, gold, seed) -> None:
    case = DAMAGES[kind](random.Random(seed), gold)
    assert case
    assert extracted(case).patch == gold.patch


@pytest.fixture(scope="module")
def real_patches() -> list[str]:
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = os.environ.get("SWEBENCH_TRAINER_DATA")
    if not folder:
        pytest.skip("SWEBENCH_TRAINER_DATA names no folder with the real rows")
    names = ("SWE-bench_Verified_test.parquet", "SWE-bench_dev.parquet")
    return [
        row["patch"]
        for name in names
        for row in parquet.read_table(Path(folder, name), columns=["patch"]).to_pylist()
    ]


def test_real_patches_that_are_damaged(real_patches) -> None:
    found: Counter[str] = Counter()
    for case in variants(real_patches, per_kind=4, seed=1):
        result = outcome(case)
        assert result != "wrong", case
        found[result if case.kind not in UNKNOWABLE else "unknowable"] += 1
    assert found["right"] >= 0.9 * (found["right"] + found["refused"])


@pytest.mark.slow
def test_real_patches_come_back_as_they_are(real_patches) -> None:
    for patch in real_patches:
        gold = gold_of(patch)
        if gold:
            assert extracted(Case("", gold.base, patch, gold.after)) == ExtractedPatch(
                patch, Extraction(), StaticChecks(applies=True)
            )
