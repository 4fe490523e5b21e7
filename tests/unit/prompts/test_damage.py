"""Damaged patches give the right tree or none."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest
from damage import (
    AMBIGUOUS,
    DAMAGES,
    Case,
    Gold,
    Memory,
    applied,
    between,
    gold_of,
    variants,
)
from hypothesis import assume, given, settings, strategies as st

from swebench_trainer.answers.diffs import ExtractedPatch
from swebench_trainer.answers.forms import extract_patch
from swebench_trainer.types import Extraction, StaticChecks

UNTOUCHED = (
    "nothing",
    "fences and prose",
    "only prose",
    "tags",
    "a draft in thoughts",
)
"""Damage around the patch, which is extracted unchanged."""
MOVING = ("line numbers", "counts and line numbers", "no context", "several at once")
"""Damage after which git may find the same lines in another place first."""


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
    """Edits of one or two files, whose lines are distinct or often repeat."""

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
def test_damaged_patches_give_the_right_tree_if_lines_are_distinct(
    kind, gold, seed
) -> None:
    case = DAMAGES[kind](random.Random(seed), gold)
    if case:
        assert outcome(case) == ("refused" if kind in AMBIGUOUS else "right")


@pytest.mark.parametrize("kind", sorted(set(DAMAGES) - set(MOVING)))
@given(gold=golds(distinct=False), seed=st.integers(0, 9))
@settings(max_examples=4, deadline=None)
def test_damaged_patches_never_give_a_wrong_tree_if_lines_repeat(
    kind, gold, seed
) -> None:
    case = DAMAGES[kind](random.Random(seed), gold)
    if case:
        assert outcome(case) != "wrong"


@pytest.mark.parametrize("kind", UNTOUCHED)
@given(gold=golds(distinct=False), seed=st.integers(0, 9))
@settings(max_examples=4, deadline=None)
def test_a_patch_that_applies_is_not_changed(kind, gold, seed) -> None:
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


def test_most_damaged_real_patches_are_repaired_and_none_wrongly(real_patches) -> None:
    found: Counter[str] = Counter()
    for case in variants(real_patches, per_kind=4, seed=1):
        result = outcome(case)
        assert result != "wrong", case
        found[result if case.kind not in AMBIGUOUS else "ambiguous"] += 1
    assert found["right"] >= 0.9 * (found["right"] + found["refused"])


@pytest.mark.slow
def test_real_patches_are_extracted_unchanged(real_patches) -> None:
    for patch in real_patches:
        gold = gold_of(patch)
        if gold:
            assert extracted(Case("", gold.base, patch, gold.after)) == ExtractedPatch(
                patch, Extraction(), StaticChecks(applies=True)
            )
