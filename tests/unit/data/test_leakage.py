"""What training and evaluation may not share; found without comparing every pair."""

import dataclasses
import random
import time

import pytest

from swebench_trainer.data.leakage import NAMED, find_leakage, public_test
from swebench_trainer.data.metadata import InstanceSet, metadata_of
from swebench_trainer.types import Instance


def lines(seed, count=12):
    draw = random.Random(seed)
    return [
        f"    {draw.choice('abcdef')}{draw.randrange(9999)} = call({draw.randrange(9999)}, "
        f"key={draw.choice('uvwxyz')}{draw.randrange(99)})"
        for _ in range(count)
    ]


def patch(added, path="src/x.py", removed=("    old = 1",)):
    body = [*(f"-{line}" for line in removed), *(f"+{line}" for line in added)]
    return (
        f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n"
        f"@@ -3,{len(removed)} +3,{len(added)} @@\n" + "\n".join(body) + "\n"
    )


def instance(name, seed=None, **changes):
    seed = name if seed is None else seed
    values = {
        "repo": f"o/{name}",
        "base_commit": f"{name}00000000",
        "problem_statement": f"Issue {name} " + " ".join(lines(f"p{seed}", 3)),
        "patch": patch(lines(seed)),
    } | changes
    return Instance(instance_id=name, **values)


def found(heldout, train):
    return find_leakage(InstanceSet(heldout), InstanceSet(train))


def reasons(heldout, train):
    leakage = found([heldout], [train])
    assert leakage.train == ({train.instance_id} if leakage.findings else set())
    return [finding.reason for finding in leakage.findings]


def test_different_instances_share_nothing():
    assert reasons(instance("a"), instance("b")) == []
    many = [instance(f"i{n}") for n in range(60)]
    assert found(many[:20], many[20:]).findings == []


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("django__django-1", "Django__django-1"),
        ("instance_a__b-c0ffee-vnan", "a__b-c0ffee"),
    ],
)
def test_an_instance_is_recognized_under_another_id(ours, theirs):
    one = instance(ours, 1, repo="o/one")
    other = instance(theirs, 2, repo="o/other")
    assert reasons(one, other) == ["the same instance"]


def test_issue_texts_match_regardless_of_whitespace():
    text = "A  Bug\nthat takes more than a hundred characters to tell. " * 3
    ours = instance("a", problem_statement=text)
    theirs = instance("b", problem_statement=" ".join(text.lower().split()))
    assert reasons(ours, theirs) == ["the same issue text"]
    short = {"problem_statement": "It breaks."}
    assert reasons(instance("a", **short), instance("b", **short)) == []
    same = {**short, "repo": "o/r"}
    assert reasons(instance("a", **same), instance("b", **same)) == [
        "the same issue text"
    ]


def test_a_shared_commit_counts_only_with_a_shared_file():
    here = {"repo": "o/r", "base_commit": "c0ffee0123456789"}
    ours = instance("a", **here)
    assert reasons(ours, instance("b", **here)) == ["the same commit and file"]
    other_file = patch(lines("b"), path="src/y.py")
    assert reasons(ours, instance("b", **here, patch=other_file)) == []
    assert reasons(ours, instance("b", repo="o/r")) == []
    mirror = instance("m", repo="swesmith/O__r.c0ffee01", base_commit="main")
    assert reasons(ours, mirror) == ["the same commit and file"]


def test_gold_patches_match_regardless_of_whitespace_and_position():
    code = lines("x")
    indented = patch([f"    {line}  " for line in code], path="lib/moved.py")
    ours = instance("a", patch=patch(code))
    assert reasons(ours, instance("b", patch=indented.replace("-3,1", "-90,1"))) == [
        "the same gold patch"
    ]


def test_similar_gold_patches_match():
    code = lines("x", 20)
    ours = instance("a", patch=patch(code))
    larger = instance("b", patch=patch([*lines("y", 40), *code, *lines("z", 40)]))
    assert reasons(ours, larger) == ["nearly the same gold patch"]
    reworded = instance("b", patch=patch([*code[:18], *lines("y", 2)]))
    assert reasons(ours, reworded) == ["nearly the same gold patch"]
    half = instance("b", patch=patch([*code[:10], *lines("y", 10)]))
    assert reasons(ours, half) == []


def test_short_patches_match_only_in_the_same_file():
    def short(name, path="setup.py", **changes):
        return instance(name, patch=patch(["  version = 2"], path), **changes)

    ours = short("a", repo="o/r")
    assert reasons(ours, short("b", repo="Fork/R")) == ["the same gold patch"]
    moved = short("b", repo="o/r", path="src/setup.py")
    assert reasons(ours, moved) == ["the same gold patch"]
    crlf = dataclasses.replace(moved, patch=moved.patch.replace("\n", "\r\n"))
    assert reasons(ours, crlf) == ["the same gold patch"]
    assert reasons(ours, short("b", repo="o/r", path="y.py")) == []
    assert reasons(ours, short("b", repo="o/other")) == []


def test_short_patches_match_regardless_of_file_order():
    one, two = patch(["x = 2"], "a.py"), patch(["y = 2"], "b.py")
    ours, theirs = (
        instance(name, repo="o/r", patch=text)
        for name, text in (("a", one + two), ("b", two + one))
    )
    assert reasons(ours, theirs) == ["the same gold patch"]


def test_a_common_license_header_is_not_leakage():
    header = [
        f"# Licensed to everybody, line {n} of the licence text" for n in range(60)
    ]
    heldout = [
        instance(f"a{n}", patch=patch([*header, *lines(n, 30)])) for n in range(200)
    ]
    train = [
        instance(f"b{n}", patch=patch([*header, *lines(n + 999, 30)]))
        for n in range(50)
    ]
    assert found(heldout, train).findings == []
    twin = instance("twin", patch=patch([*header, *lines(150, 30)[1:]]))
    (finding,) = found(heldout, [*train, twin]).findings
    assert (finding.heldout, finding.train) == ("a150", ["twin"])


def test_a_finding_names_some_instances_and_counts_all():
    code = patch(lines("x"))
    train = [instance(f"t{n}", patch=code) for n in range(50)]
    leakage = found([instance("h", patch=code), instance("quiet")], train)
    (finding,) = leakage.findings
    assert (finding.heldout, finding.count, len(finding.train)) == ("h", 50, NAMED)
    assert str(finding) == "h and t0 and 49 more: the same gold patch"
    assert len(leakage.train) == 50


@pytest.mark.parametrize("text", ["", "no diff", "\ud800", "@@ -1 +1 @@", "+" * 9999])
def test_a_text_that_is_not_a_diff_only_matches_itself(text):
    assert reasons(instance("a", patch=text), instance("b")) == []
    ours, theirs = instance("a", patch=text), instance("b", patch=text)
    assert reasons(ours, theirs) == ["the same gold patch"]


def test_leakage_is_found_without_comparing_pairs():
    """All rows share everything, the worst case for comparing pairs."""
    same = {"repo": "o/r", "base_commit": "c0ffee", "patch": patch(lines("x"))}
    heldout = [instance(f"h{n}", **same) for n in range(600)]
    train = [instance(f"t{n}", **same) for n in range(1200)]
    start = time.process_time()
    leakage = found(heldout, train)
    assert time.process_time() - start < 5
    assert len(leakage.train) == 1200
    assert sum(f.reason == "the same gold patch" for f in leakage.findings) == 600


@pytest.mark.parametrize(
    ("changes", "benchmark"),
    [
        ({"name": "django__django-1", "repo": "django/django"}, "SWE-bench"),
        ({"name": "my-own-1", "repo": "django/django"}, ""),
        ({"name": "instance_a__b-1"}, "SWE-bench Pro"),
        ({"name": "a__b-1", "source": "SWE-bench_Multilingual:test"}, "SWE-bench Multilingual"),
        ({"name": "a__b-1", "source": "SWE-bench_Multimodal:dev"}, ""),
        ({"name": "a__b-1", "source": "swe-bench_multimodal_test.parquet"}, "SWE-bench Multimodal"),
        ({"name": "a__b-1", "source": "SWE-bench_Multimodal_dev.parquet"}, ""),
        ({"name": "sqlfluff__sqlfluff-1", "repo": "sqlfluff/sqlfluff"}, ""),
    ],
)  # fmt: skip
def test_public_test_splits_are_recognized(changes, benchmark):
    assert public_test(metadata_of(instance(**changes))) == benchmark
