"""Splits: by repository, by instance, the same for the same seed."""

import pytest

from swebench_trainer.data.select import select, split
from swebench_trainer.errors import DataError, StageError
from swebench_trainer.recipe.models import DataTable, Holdout
from swebench_trainer.types import Instance


def instances(**sizes):
    return [
        Instance(f"{repo}-{n}", repo, "c", "p", "d")
        for repo, size in sizes.items()
        for n in range(size)
    ]


def heldout(given):
    return {i.instance_id for i in given if i.split == "heldout"}


def test_by_repo_keeps_whole_repositories_back():
    given = split(instances(a=8, b=8, c=8), Holdout(), 0)
    back = heldout(given)
    assert len(back) == 8
    assert len({i.repo for i in given if i.instance_id in back}) == 1
    assert back == heldout(split(instances(a=8, b=8, c=8), Holdout(), 0))
    assert {
        frozenset(heldout(split(instances(a=8, b=8, c=8), Holdout(), s)))
        for s in range(9)
    } != {frozenset(back)}


def test_by_instance_takes_the_share():
    given = split(instances(a=20), Holdout(by="instance", fraction=0.25), 3)
    assert len(heldout(given)) == 5
    assert [i.instance_id for i in given] == [i.instance_id for i in instances(a=20)]


@pytest.mark.parametrize(("given", "by"), [({"a": 5}, "repo"), ({"a": 1}, "instance")])
def test_an_empty_side_is_refused(given, by):
    with pytest.raises(StageError, match="one side would be empty"):
        split(instances(**given), Holdout(by=by), 0)


def test_include_exclude_and_limit():
    given = instances(a=10)
    assert [
        i.instance_id
        for i in select(given, DataTable(use="x", include=("a-3", "a-1")), 0)
    ] == ["a-1", "a-3"]
    assert len(select(given, DataTable(use="x", exclude=("a-3",)), 0)) == 9
    drawn = select(given, DataTable(use="x", limit=4), 0)
    assert len(drawn) == 4
    assert drawn == select(given, DataTable(use="x", limit=4), 0)
    with pytest.raises(DataError, match="a-77"):
        select(given, DataTable(use="x", include=("a-77",)), 0)
