"""Which instances take part, and which are kept held: stable, and never by accident."""

import json
import re

import pytest
from hypothesis import given, settings, strategies as st

from swebench_trainer.data.metadata import metadata_of
from swebench_trainer.data.select import select, split
from swebench_trainer.errors import DataError, StageError
from swebench_trainer.recipe.models import DataTable, Holdout
from swebench_trainer.types import Instance

PATCH = """\
diff --git a/{0} b/{0}
--- a/{0}
+++ b/{0}
@@ -1,2 +1,3 @@
-old
+new
+--- newer
 same
"""


def instance(name, repo="o/r", patch="d", **more):
    return Instance(name, repo, "c0ffee", "p", patch, **more)


def instances(**sizes):
    return [
        metadata_of(instance(f"{repo}-{n}", repo))
        for repo, size in sizes.items()
        for n in range(size)
    ]


def heldout(rows, seed=0, **holdout):
    return set(split(rows, Holdout(**holdout), seed).ids)


def table(**keys):
    return DataTable.model_validate_json(json.dumps({"use": "x", **keys}))


def selected(rows, seed=0, **keys):
    return select(rows, table(**keys), seed)


# --- Splits ---


def test_splitting_by_repo_holds_out_whole_repositories():
    rows = instances(a=8, b=8, c=8)
    held = heldout(rows)
    assert len(held) in (8, 16)
    assert len({name[0] for name in held}) == len(held) / 8
    assert {frozenset(heldout(rows, seed)) for seed in range(9)} != {frozenset(held)}


def test_an_otherwise_empty_side_is_filled_to_the_nearest_share():
    drawn = split(instances(a=4, b=4, c=4, d=4), Holdout(fraction=0.01), 0)
    assert len(drawn.ids) == 4
    assert "added rows may change" in drawn.note and not drawn.stable


def test_a_share_far_from_the_fraction_is_reported():
    rows = instances(a=8, b=8, c=8)
    notes = {
        drawn.note
        for seed in range(30)
        if (drawn := split(rows, Holdout(), seed)).stable and len(drawn.ids) == 16
    }
    assert notes == {"67% held out instead of 20%; try another fraction or seed"}


def test_splitting_by_instance_meets_the_share_on_average():
    rows = instances(a=5000)
    for seed in range(5):
        held = heldout(rows, seed, by="instance", fraction=0.25)
        assert 1250 - 130 < len(held) < 1250 + 130  # four standard deviations


NAMES = st.sets(st.integers(0, 10_000), min_size=1, max_size=60)
SEEDS = st.integers(0, 50)
FRACTIONS = st.floats(0.05, 0.9)


def held_or_none(rows, seed, **holdout):
    """The held-out ids, or `None` if the data was too small for a stable split."""
    try:
        drawn = split(rows, Holdout(**holdout), seed)
    except StageError:
        return None
    return drawn.ids if drawn.stable else None


@settings(max_examples=150, deadline=None)
@given(
    NAMES,
    NAMES,
    SEEDS,
    FRACTIONS,
    st.sampled_from(
        [{"by": "repo"}, {"by": "instance"}, {"by": "instance", "stratify": "repo"}]
    ),
)
def test_added_rows_never_move_an_instance_to_the_other_side(
    first, more, seed, fraction, how
):
    def rows(numbers):
        return [metadata_of(instance(f"i-{n}", f"o/r{n % 4}")) for n in sorted(numbers)]

    before = held_or_none(rows(first), seed, **how, fraction=fraction)
    if before is None:
        return
    after = heldout(rows(first | more), seed, **how, fraction=fraction)
    names = {f"i-{n}" for n in first}
    assert after & names == before


@settings(max_examples=40, deadline=None)
@given(NAMES, SEEDS, FRACTIONS, FRACTIONS)
def test_a_larger_fraction_holds_out_a_superset(names, seed, a, b):
    rows = [metadata_of(instance(f"i-{n}")) for n in names]
    low, high = (
        held_or_none(rows, seed, by="instance", fraction=f) for f in sorted((a, b))
    )
    if low is not None and high is not None:
        assert low <= high


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(25)), SEEDS)
def test_the_order_of_the_rows_does_not_matter(order, seed):
    rows = instances(a=10, b=9, c=6)
    shuffled = [rows[n] for n in order]
    for by in ("repo", "instance"):
        assert heldout(rows, seed, by=by) == heldout(shuffled, seed, by=by)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(2, 12), min_size=1, max_size=8), SEEDS)
def test_every_stratum_is_on_both_sides(sizes, seed):
    rows = instances(**{f"r{n}": size for n, size in enumerate(sizes)})
    held = heldout(rows, seed, by="instance", fraction=0.2, stratify="repo")
    for n, size in enumerate(sizes):
        mine = [name for name in held if name.startswith(f"r{n}-")]
        assert 0 < len(mine) < size


def test_mirrors_of_one_repository_stay_together():
    rows = [
        metadata_of(instance(f"m-{n}", f"swesmith/Pallets__flask.0000000{n % 5}"))
        for n in range(20)
    ] + [metadata_of(instance(f"p-{n}", "pallets/flask")) for n in range(20)]
    rows += instances(**{f"r{n}": 20 for n in range(9)})
    for seed in range(20):
        held = {name[:2] for name in heldout(rows, seed, fraction=0.5)}
        assert ("m-" in held) == ("p-" in held)


def dated(**dates):
    return [
        metadata_of(instance(name, created_at=when)) for name, when in dates.items()
    ]


def test_splitting_by_time_holds_out_instances_from_a_date():
    rows = dated(
        a="2020-01-01T00:00:00Z",
        b="2021-03-04 12:00:00",
        c="2021-03-05",
        d="2021-03-05T00:30:00+02:00",
        e="yesterday",
        f="",
    )
    drawn = split(rows, Holdout(by="time", after="2021-03-05"), 0)
    assert drawn.ids == {"c"}
    assert set(drawn.unusable) == {"e", "f"}
    assert "created_at is 'yesterday'" in str(drawn.unusable["e"])
    assert "created_at is missing" in str(drawn.unusable["f"])


def test_splitting_by_time_with_a_fraction_holds_out_the_newest_and_ties():
    rows = dated(a="2020-01-01", b="2021-01-01", c="2022-01-01", d="2022-01-01")
    drawn = split(rows, Holdout(by="time", fraction=0.25), 0)
    assert drawn.ids == {"c", "d"}
    assert "2022-01-01" in drawn.note


def test_splitting_by_list_accepts_ids_and_files(tmp_path):
    rows = instances(a=9)
    (tmp_path / "ids.txt").write_text("a-1  # the first\n\n# none\na-2\n")
    (tmp_path / "rows.jsonl").write_text('{"instance_id": "a-3", "repo": "x"}\n')
    assert heldout(rows, by="list", ids=["a-4"]) == {"a-4"}
    both = heldout(rows, by="list", ids=["a-4"], file=tmp_path / "ids.txt")
    assert both == {"a-1", "a-2", "a-4"}
    assert heldout(rows, by="list", file=tmp_path / "rows.jsonl") == {"a-3"}


def test_a_list_may_name_unselected_rows_but_not_unknown_ids():
    rows, holdout = instances(a=3), Holdout(by="list", ids=("a-1", "gone-1"))
    assert split(rows, holdout, 0, known={"gone-1"}).ids == {"a-1"}
    with pytest.raises(DataError, match="not in the data: gone-1"):
        split(rows, holdout, 0)


@pytest.mark.parametrize(
    ("name", "content"),
    [("l.txt", b"\xff\xfe\xff"), ("l.jsonl", b'{"id": 1}\n'), ("l.json", b"[")],
)
def test_an_unreadable_list_raises_with_its_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        heldout(instances(a=3), by="list", file=tmp_path / name)
    with pytest.raises(DataError, match=r"Cannot read the list .*none\.txt"):
        heldout(instances(a=3), by="list", file=tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("rows", "holdout"),
    [
        (instances(a=5), {"by": "repo"}),
        (instances(a=1), {"by": "instance"}),
        (instances(a=3), {"by": "list", "ids": ["a-0", "a-1", "a-2"]}),
        (dated(a="2020-01-01", b="2020-01-01"), {"by": "time", "fraction": 0.5}),
        (dated(a="2020-01-01"), {"by": "time", "after": "2030-01-01"}),
        (dated(a="", b=""), {"by": "time"}),
        ([], {"by": "repo"}),
    ],
)
def test_an_empty_side_raises_with_a_hint(rows, holdout):
    with pytest.raises(StageError, match="leaves one side empty") as refused:
        heldout(rows, **holdout)
    assert refused.value.hint


def test_fraction_zero_holds_out_nothing():
    assert heldout(instances(a=3), fraction=0) == set()


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"by": "repo", "after": "2020-01-01"}, 'after goes with by = "time"'),
        ({"stratify": "repo"}, 'stratify goes with by = "instance"'),
        ({"by": "list"}, "needs ids or file"),
        ({"by": "list", "ids": ["a"], "fraction": 0.1}, "exclude each other"),
        ({"by": "time", "after": "2020-01-01", "fraction": 0.1}, "exclude each other"),
    ],
)
def test_incompatible_keys_are_rejected(keys, says):
    with pytest.raises(ValueError, match=says):
        Holdout(**keys)


# --- Selection ---


def test_ids_are_included_excluded_and_sampled():
    rows = instances(a=10)
    assert selected(rows, include=["a-3", "a-1"]) == {"a-1", "a-3"}
    assert len(selected(rows, exclude=["a-3", "of another base recipe"])) == 9
    drawn = selected(rows, limit=4)
    assert len(drawn) == 4
    assert drawn == selected(rows, limit=4) != selected(rows, seed=1, limit=4)


MIXED = [
    metadata_of(instance("py-1", "o/a", PATCH.format("x.py"), difficulty="easy")),
    metadata_of(instance("py-2", "o/a", PATCH.format("x.py") + PATCH.format("y.py"))),
    metadata_of(instance("go-1", "o/b", PATCH.format("x.go"), difficulty="hard")),
    metadata_of(instance("js-1", "o/b", PATCH.format("x.py"), language="JS")),
]


def test_selection_by_repository_language_and_difficulty():
    def ids(**keys):
        return sorted(selected(MIXED, **keys))

    assert ids(include={"repos": ["o/a"]}) == ["py-1", "py-2"]
    assert ids(include={"languages": ["Python"]}) == ["py-1", "py-2"]
    assert ids(include={"languages": ["javascript", "go"]}) == ["go-1", "js-1"]
    assert ids(include={"repos": ["o/a"], "difficulties": ["easy"]}) == ["py-1"]
    assert ids(exclude={"repos": ["o/a"], "difficulties": ["hard"]}) == ["js-1"]
    assert ids(exclude={"languages": ["cobol"]}) == ["go-1", "js-1", "py-1", "py-2"]


def test_selection_by_size_of_the_gold_patch():
    assert {f.instance_id: (f.lines, len(f.files)) for f in MIXED} == {
        "py-1": (3, 1),
        "py-2": (6, 2),
        "go-1": (3, 1),
        "js-1": (3, 1),
    }
    assert "py-2" not in selected(MIXED, max_patch_lines=5)
    assert "py-2" not in selected(MIXED, max_patch_files=1)
    assert len(selected(MIXED, max_patch_lines=6, max_patch_files=2)) == 4


@pytest.mark.parametrize(
    ("include", "says"),
    [
        (["a-77"], "1 instances that are not in the data: a-77"),
        ({"repos": ["o/aa"]}, r"1 repositories .*: o/aa\.\nDid you mean 'o/a'\?"),
        ({"languages": ["cobol"]}, r"The data has: 'go', 'javascript', 'python'\."),
        ({"difficulties": ["esy"]}, "Did you mean 'easy'?"),
    ],
)
def test_include_must_name_existing_values(include, says):
    with pytest.raises(DataError) as refused:
        selected(MIXED, include=include)
    assert re.search(says, str(refused.value))


def test_include_may_name_an_unusable_row():
    assert select(MIXED, table(include=["py-1", "broken-1"]), 0, {"broken-1"}) == {
        "py-1"
    }


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="+-@ \n/abdev,.0123456789", max_size=200))
def test_metadata_accepts_any_patch(text):
    for patch in (text, "diff --git " + text, PATCH.format("x") + text):
        rows = metadata_of(instance("x", patch=patch))
        assert "" not in rows.files and "/dev/null" not in rows.files


def test_metadata_has_the_paths_of_plain_diffs_and_renames():
    plain = "--- a/x.py\t2020\n+++ b/x.py\t2021\n@@ -1 +1 @@\n-a\n+b\n--- /dev/null\n+++ b/y.py\n@@ -0,0 +1 @@\n+c\n"
    assert metadata_of(instance("x", patch=plain)).files == ("x.py", "y.py")
    quoted = '--- "a/\\303\\244.py"\n+++ "b/\\303\\244.py"\n@@ -1 +1 @@\n-a\n+b\n'
    assert len(metadata_of(instance("x", patch=quoted)).files) == 1
    moved = "diff --git a/p q.c b/r.c\nsimilarity index 100%\nrename from p q.c\nrename to r.c\n"
    rows = metadata_of(instance("x", patch=moved))
    assert (rows.files, rows.lines, rows.language) == (("p q.c", "r.c"), 0, "c")
