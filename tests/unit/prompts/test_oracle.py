"""Oracle prompts show every needed line, without a hint which lines these are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from context import an_instance, estimate, module, render
from damage import Memory
from hypothesis import given, settings, strategies as st

from swebench_trainer.answers.blocks import Edit, parse_blocks
from swebench_trainer.answers.forms import render_answer
from swebench_trainer.errors import UnusableInstance
from swebench_trainer.prompts.oracle import OracleStyle, OracleTable
from swebench_trainer.types import Instance

FORMS = ("search-replace", "diff")


def style(**keys) -> OracleStyle:
    return OracleStyle(OracleTable(use="oracle", **keys))


def edited(text: str, numbers, word: str = "FIXED") -> str:
    """The text with some of its lines replaced."""
    lines = text.split("\n")
    for number in numbers:
        lines[number % (len(lines) - 1)] = f"    {word} = {number}"
    return "\n".join(lines)


def many(instance: Instance) -> Iterator[Instance]:
    for number in range(150):
        yield dataclasses.replace(instance, instance_id=f"demo__demo-{number}")


@st.composite
def cases(draw: st.DrawFn):
    """Files, an instance that edits some of them, and a budget that may be too small."""
    names = draw(st.lists(st.sampled_from("abcdef"), min_size=1, unique=True))
    sizes = st.integers(1, 80)
    # Few different functions, so that a search text must grow to be unique.
    old = {
        f"src/{n}.py": module(draw(sizes), draw(st.sampled_from("xy"))) for n in names
    }
    picks = st.lists(st.integers(0, 400), min_size=1, max_size=4)
    some = draw(st.integers(1, len(names)))
    new = {
        path: edited(text, draw(picks)) if n < some else text
        for n, (path, text) in enumerate(old.items())
    }
    return old, an_instance(old, new), draw(st.integers(300, 3000))


@settings(max_examples=30, deadline=None)
@given(
    case=cases(),
    form=st.sampled_from(FORMS),
    seed=st.integers(0, 9),
    distractors=st.integers(0, 3),
    context=st.sampled_from([None, 0]),
)
def test_the_prompt_shows_all_quoted_lines_and_no_added_ones(
    case, form, seed, distractors, context
) -> None:
    old, instance, budget = case
    made = style(
        answer=form,
        context_tokens=budget,
        distractors=distractors,
        search_context=context,
    )
    try:
        prompt = render(made, instance, old, seed)
    except UnusableInstance:  # the budget is too small
        return
    assert estimate(prompt.text) <= budget
    assert "FIXED" not in prompt.text
    regions = [
        "\n".join(old[path].split("\n")[region.start : region.stop])
        for path, shown in prompt.shown.items()
        for region in shown
    ]
    assert all(region in prompt.text for region in regions)
    tree = Memory({path: text.encode() for path, text in old.items()})
    answer = render_answer(form, instance, tree, context=context)
    for quoted in _quotes(form, answer):
        assert any(quoted in region for region in regions)


def _quotes(form: str, answer: str) -> list[str]:
    if form == "search-replace":
        blocks = [b for b in parse_blocks(answer)[0] if isinstance(b, Edit)]
        return ["\n".join(block.search.lines) for block in blocks]
    files = answer.split("diff --git ")
    hunks = [hunk for file in files for hunk in file.split("\n@@ ")[1:]]
    return [
        "\n".join(line[1:] for line in hunk.split("\n")[1:] if line[:1] in (" ", "-"))
        for hunk in hunks
    ]


@settings(max_examples=30, deadline=None)
@given(
    numbers=st.lists(st.integers(0, 299), min_size=1, max_size=4),
    budget=st.integers(500, 2500),
    form=st.sampled_from(FORMS),
)
def test_the_prompt_depends_only_on_the_positions_of_the_edits(
    numbers, budget, form
) -> None:
    old = {"src/a.py": module(60), "src/b.py": module(60, "other")}
    one, two = (
        an_instance(
            old,
            old | {"src/a.py": edited(old["src/a.py"], numbers, word)},
            test_patch=word,
        )
        for word in ("FIXED", "ANOTHER\n    WAY")
    )
    assert one.patch != two.patch
    made = style(answer=form, context_tokens=budget)
    try:
        prompt = render(made, one, old)
    except ValueError:
        return
    assert prompt == render(made, two, old)


def test_the_edit_position_in_its_region_is_uniform_and_decoys_exist() -> None:
    old = {"src/a.py": module(200)}
    new = {"src/a.py": edited(old["src/a.py"], [501])}
    thirds = [0, 0, 0]
    for instance in many(an_instance(old, new)):
        (shown,) = render(style(context_tokens=1200), instance, old).shown.values()
        (region,) = (r for r in shown if 501 in r)
        thirds[3 * (501 - region.start) // len(region)] += 1
        assert len(shown) > 1 or len(region) > 40  # two that have met
    assert min(thirds) > 20


def test_regions_with_and_without_edits_have_similar_lengths() -> None:
    old = {"src/a.py": module(400)}
    new = {"src/a.py": edited(old["src/a.py"], [801, 1403])}
    made = style(context_tokens=2000)
    with_edit, without = [], []
    for instance in many(an_instance(old, new)):
        for shown in render(made, instance, old).shown.values():
            for region in shown:
                edits = 801 in region or 1403 in region
                (with_edit if edits else without).append(len(region))
    means = [sum(lengths) / len(lengths) for lengths in (with_edit, without)]
    assert 0.75 < means[0] / means[1] < 1.35


def test_instructions_are_optional() -> None:
    old = {"src/a.py": module(9)}
    instance = an_instance(old, {"src/a.py": edited(old["src/a.py"], [3])})
    told = render(style(), instance, old).text
    untold = render(style(instructions=False), instance, old).text
    assert told.startswith(untold)
    assert "REPLACE" in told and "REPLACE" not in untold


def test_omitted_lines_are_marked_and_small_files_are_whole() -> None:
    old = {"src/a.py": module(100), "src/b.py": module(2, "other")}
    new = old | {"src/a.py": edited(old["src/a.py"], [250])}
    prompt = render(style(context_tokens=1000), an_instance(old, new), old)
    left_out = 500 - sum(map(len, prompt.shown["src/a.py"]))
    said = [
        int(line.split()[0][1:])
        for line in prompt.text.split("\n")
        if line.endswith(" lines not shown]")
    ]
    assert sum(said) == left_out
    assert old["src/b.py"] in prompt.text
    assert "`[n lines not shown]` stands for" in prompt.text
    whole = render(style(), an_instance(old, new), old)
    assert "not shown]" not in whole.text


@pytest.mark.parametrize(
    ("keys", "problem", "reason"),
    [
        ({"context_tokens": 400}, "It breaks. " * 200, "the issue is longer"),
        ({"context_tokens": 250}, "It breaks.", "the lines that the gold patch edits"),
    ],
)
def test_an_instance_that_exceeds_the_budget_raises_with_the_reason(
    keys, problem, reason
) -> None:
    old = {"src/a.py": module(40)}
    new = {"src/a.py": edited(old["src/a.py"], range(20, 60))}
    instance = an_instance(old, new, problem_statement=problem)
    with pytest.raises(ValueError, match=reason):
        render(style(**keys), instance, old)


def test_a_patch_that_does_not_fit_the_files_raises() -> None:
    old = {"src/a.py": module(4)}
    instance = an_instance(old, {"src/a.py": edited(old["src/a.py"], [3])})
    with pytest.raises(ValueError, match=r"does not fit src/a\.py"):
        render(style(), instance, {"src/a.py": module(4, "moved")})


def test_distractors_are_nearby_source_files() -> None:
    old = {
        "src/pkg/a.py": module(2),
        "src/pkg/b.py": module(2, "b"),
        "src/pkg/c.md": "# C\n",
        "src/pkg/test_a.py": module(2, "t"),
        "src/pkg/tests/x.py": module(2, "x"),
        "src/pkg/min.py": "x" * 3000 + "\n",
        "src/pkg/empty.py": "",
        "src/other/d.py": module(2, "d"),
        "setup.py": "setup()\n",
    }
    new = old | {"src/pkg/a.py": edited(old["src/pkg/a.py"], [1])}
    instance = an_instance(old, new)

    def shown(count: int) -> set[str]:
        return {*render(style(distractors=count), instance, old).shown}

    assert shown(0) == {"src/pkg/a.py"}
    assert shown(1) == {"src/pkg/a.py", "src/pkg/b.py"}
    assert shown(2) == {"src/pkg/a.py", "src/pkg/b.py", "src/other/d.py"}
    assert shown(9) == shown(2) | {"setup.py"}


def test_the_seed_decides_order_and_regions() -> None:
    old = {f"src/{n}.py": module(80, n) for n in "abc"}
    new = {path: edited(text, [200]) for path, text in old.items()}
    instance = an_instance(old, new)
    made = style(context_tokens=3000)
    texts = {render(made, instance, old, seed).text for seed in range(5)}
    assert len(texts) == 5
    assert render(made, instance, old, 3) == render(made, instance, old, 3)


def test_a_deleted_file_is_not_required_in_the_prompt() -> None:
    old = {"src/a.py": module(300), "src/b.py": "b = 1\n"}
    instance = an_instance(old, {"src/b.py": "b = 1\n"})
    small = style(context_tokens=400)
    assert "src/a.py" in render(small, instance, old).shown
    with pytest.raises(ValueError, match="the lines that the gold patch edits"):
        render(style(answer="diff", context_tokens=400), instance, old)


def test_the_budget_must_leave_room_for_an_answer() -> None:
    with pytest.raises(ValueError, match="leaves no room for an answer"):
        OracleTable(context_tokens=8192)


def test_a_cropped_prompt_matches_the_golden_file() -> None:
    old = {"src/a.py": module(60), "src/b.py": module(50, "other")}
    new = old | {"src/a.py": edited(old["src/a.py"], [102, 251])}
    prompt = render(style(context_tokens=1100), an_instance(old, new), old)
    golden = Path(__file__).parent / "golden" / "oracle-cropped.txt"
    assert prompt.text.encode() == golden.read_bytes()


def test_a_submodule_that_gold_moves_does_not_drop_the_row() -> None:
    old = {"src/a.py": module(5, "x")}
    instance = an_instance(old, {"src/a.py": edited(old["src/a.py"], [2])})
    moved = "".join(
        (
            "diff --git a/vendor b/vendor\n",
            f"index {'1' * 7}..{'2' * 7} 160000\n",
            "--- a/vendor\n+++ b/vendor\n@@ -1 +1 @@\n",
            f"-Subproject commit {'1' * 40}\n+Subproject commit {'2' * 40}\n",
        )
    )
    with_submodule = dataclasses.replace(instance, patch=instance.patch + moved)
    for form in FORMS:
        prompt = render(style(answer=form), with_submodule, old)
        assert prompt.text == render(style(answer=form), instance, old).text
