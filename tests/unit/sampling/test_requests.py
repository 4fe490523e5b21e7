from __future__ import annotations

import pytest
from pydantic import ValidationError

from swebench_trainer.recipe.models import GenerateTable
from swebench_trainer.stages.generate import _requests
from swebench_trainer.types import Instance

INSTANCES = [Instance(name, "a/b", "c0ffee", "It fails.", "") for name in ("a", "b")]


def requests(writers=1, **keys):
    table = GenerateTable(**keys)
    samples = range(writers * table.samples)
    return _requests(INSTANCES, {"a": "Fix a.", "b": "Fix b."}, table, samples, seed=3)


def test_settings_reach_every_request():
    keys = {"temperature": 0.6, "top_p": 0.9, "top_k": 40, "min_p": 0.05}
    found = requests(samples=2, max_new_tokens=77, **keys)
    assert [(r.instance_id, r.sample, r.prompt) for r in found] == [
        ("a", 0, "Fix a."),
        ("a", 1, "Fix a."),
        ("b", 0, "Fix b."),
        ("b", 1, "Fix b."),
    ]
    for request in found:
        assert {key: getattr(request, key) for key in keys} == keys
        assert request.max_new_tokens == 77
    assert len({r.seed for r in found}) == 4


def test_only_the_first_sample_is_greedy_and_only_if_enabled():
    drawn, mixed = requests(samples=3), requests(samples=3, greedy=True)
    assert {r.temperature for r in drawn} == {0.8}
    assert [r.temperature for r in mixed] == [0.0, 0.8, 0.8] * 2
    assert mixed[1:3] == drawn[1:3], "the others are what they would be without it"
    both = requests(writers=2, samples=2, greedy=True)
    assert [r.temperature for r in both] == [0.0, 0.8, 0.0, 0.8] * 2, "each writer's"


@pytest.mark.parametrize("keys", [{"top_k": -1}, {"min_p": 1.0}, {"min_p": -0.1}])
def test_invalid_sampling_settings_are_rejected(keys):
    with pytest.raises(ValidationError):
        GenerateTable(**keys)
