"""Prompts with files that were found or listed: what of them is shown, and in which order."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from context import an_instance, estimate, module, render
from hypothesis import given, settings, strategies as st

from swebench_trainer.errors import DataError
from swebench_trainer.prompts.ranked_files import (
    NO_ROOM,
    Bm25Style,
    Bm25Table,
    ListedStyle,
    ListedTable,
    read_lists,
)

FILES = {
    "src/parser.py": module(60, "parse") + "def tokenize_heading(text):\n    pass\n",
    "src/writer.py": module(60, "write"),
    "src/heading.py": "class Heading:\n    level = 1\n",
    "src/reader.py": module(60, "read"),
    "tests/test_parser.py": "def test_tokenize_heading():\n    pass\n",
    "README.md": "tokenize_heading heading Heading\n",
}
INSTANCE = an_instance(
    {"src/heading.py": FILES["src/heading.py"]},
    {"src/heading.py": "class Heading:\n    level = 'the fix'\n"},
    problem_statement="`tokenize_heading` loses the level of a Heading.",
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def bm25(**keys) -> Bm25Style:
    return Bm25Style(Bm25Table(use="bm25", **keys))


@pytest.fixture
def listed(tmp_path):
    def style(*files: str, **keys) -> ListedStyle:
        path = tmp_path / "list.jsonl"
        row = {"instance_id": INSTANCE.instance_id, "files": files}
        path.write_text(json.dumps(row) + "\n")
        return ListedStyle(ListedTable(use="files", list=path, **keys))

    return style


def test_retrieved_files_are_shown_and_recorded() -> None:
    prompt = render(bm25(), INSTANCE, FILES)
    assert prompt.facts == {"retrieved": ["src/heading.py", "src/parser.py"]}
    assert FILES["src/heading.py"] in prompt.text
    assert "def tokenize_heading(text):" in prompt.text
    assert "write_1" not in prompt.text
    assert set(render(bm25(files=1), INSTANCE, FILES).shown) == {"src/heading.py"}
    assert bm25().context == "bm25"


def test_retrieval_ignores_the_fix() -> None:
    other = an_instance(
        {"src/writer.py": FILES["src/writer.py"]},
        {"src/writer.py": "", "src/new.py": "1\n"},
        problem_statement=INSTANCE.problem_statement,
        test_patch="tests",
        base_commit="1" * 40,
    )
    assert render(bm25(), INSTANCE, FILES) == render(bm25(), other, FILES)


def test_the_query_includes_requirements_and_interface() -> None:
    pro = an_instance({"a": "1\n"}, {"a": "2\n"}, requirements="write_3 stays")
    assert render(bm25(), pro, FILES).facts["retrieved"] == ["src/writer.py"]


def test_an_issue_without_matches_is_shown_without_files() -> None:
    strange = an_instance({"a": "1\n"}, {"a": "2\n"}, problem_statement="?!")
    prompt = render(bm25(), strange, FILES)
    assert (prompt.shown, prompt.facts) == ({}, {"retrieved": []})
    assert render(bm25(), strange, {"README.md": "?!\n"}).shown == {}


@settings(max_examples=40, deadline=None)
@given(
    budget=st.integers(300, 4000),
    seed=st.integers(0, 5),
    sizes=st.lists(st.integers(0, 90), min_size=1, max_size=6),
    problem=st.sampled_from(["It breaks.", "y and z", "value_7 breaks", "w0_3 w1_50"]),
)
def test_prompts_stay_within_the_budget_and_lines_are_never_cut(
    budget, seed, sizes, problem
) -> None:
    files = {f"w{n}.py": module(size, f"w{n}") for n, size in enumerate(sizes)}
    instance = an_instance({"a": "1\n"}, {"a": "2\n"}, problem_statement=problem)
    prompt = render(bm25(context_tokens=budget), instance, files, seed)
    assert estimate(prompt.text) <= budget
    for path, shown in prompt.shown.items():
        lines = files[path].split("\n")[:-1]
        assert shown
        for before, after in pairwise(shown):
            assert before.stop < after.start
        for region in shown:
            assert region and region.stop <= len(lines)
            wanted = "\n" + "\n".join(lines[region.start : region.stop]) + "\n"
            assert wanted in prompt.text
    left_out = sum(
        len(files[path].split("\n")) - 1 - sum(map(len, shown))
        for path, shown in prompt.shown.items()
    )
    said = [
        int(line[1:].split()[0])
        for line in prompt.text.split("\n")
        if line.endswith(" lines not shown]")
    ]
    assert sum(said) == left_out


def test_a_long_file_is_cropped_around_the_terms_of_the_issue(listed) -> None:
    text = module(300, "a").replace("y = x + 222\n", "y = x + 222  # rounding\n")
    instance = an_instance(
        {"a": "1\n"}, {"a": "2\n"}, problem_statement="Wrong rounding."
    )
    prompt = render(listed("a.py", context_tokens=900), instance, {"a.py": text})
    assert "# rounding" in prompt.text
    assert sum(map(len, prompt.shown["a.py"])) < 150


def test_a_long_file_without_those_terms_is_a_skeleton_or_skipped(listed) -> None:
    body = "".join(f"        y{n} = 0\n" for n in range(400))
    text = f"class Thing:\n\n    @property\n    def a(\n        self,\n    ):\n{body}"
    instance = an_instance(
        {"a": "1\n"}, {"a": "2\n"}, problem_statement="Wrong rounding."
    )
    style = listed("a.py", "a.txt", context_tokens=600)
    prompt = render(style, instance, {"a.py": text, "a.txt": body})
    assert prompt.shown == {"a.py": (range(0, 6),)}
    assert prompt.facts["skipped"] == {"a.txt": NO_ROOM}
    broken = render(style, instance, {"a.py": "def (\n" + text})
    assert broken.shown == {}


def test_unreadable_files_are_skipped_with_the_reason(listed) -> None:
    files = {
        "good.py": "x = 1\n",
        "binary.py": "\0",
        "min.js": "x" * 5000,
        "empty.py": "",
    }
    names = ["../a", "gone.py", "/etc/passwd", ".git/config", "good.py", *files]
    prompt = render(listed(*names), INSTANCE, files)
    assert set(prompt.shown) == {"good.py"}
    assert prompt.facts == {
        "retrieved": list(dict.fromkeys(names)),
        "skipped": {
            "../a": "unsafe path",
            "/etc/passwd": "unsafe path",
            ".git/config": "unsafe path",
            "gone.py": "the repository has no file gone.py",
            "binary.py": "binary.py is a binary file",
            "min.js": "min.js looks generated: it has lines of more than 2000 characters",
            "empty.py": "empty.py is empty",
        },
    }


def test_the_seed_decides_the_order_of_files(listed) -> None:
    files = {f"{name}.py": f"{name} = 1\n" for name in "abcdef"}

    def order(seed: int) -> list[str]:
        return [*render(listed(*files), INSTANCE, files, seed).shown]

    assert sorted(order(0)) == [*files]
    assert len({tuple(order(seed)) for seed in range(5)}) == 5


def test_an_instance_missing_from_the_list_raises(listed) -> None:
    other = an_instance({"a": "1\n"}, {"a": "2\n"}, instance_id="other")
    with pytest.raises(ValueError, match=r"list\.jsonl lists no files for it"):
        render(listed("a.py"), other, FILES)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", b"{}\n", "line 1: instance_id is missing"),
        ("a.jsonl", b'\n{"instance_id": 1}\n', "line 2: instance_id is missing"),
        ("a.jsonl", b'{"instance_id": "i"}\n', "line 1: files is not a list of paths"),
        (
            "a.jsonl",
            b'{"instance_id": "i", "files": [1]}\n',
            "line 1: files is not a list of paths",
        ),
        ("a.jsonl", b"[]\n", "line 1: not a JSON object"),
        ("a.jsonl", b"{\n", "line 1: invalid JSON"),
        (
            "a.jsonl",
            b'{"instance_id": "i", "files": []}\n' * 2,
            "line 2: duplicate list",
        ),
        ("a.jsonl", b"[" * 200_000 + b"\n", "line 1: invalid JSON"),
        ("a.jsonl", b"\xff", "not UTF-8"),
        ("a.json", b'{"i":\n "a.py"', "line 2: invalid JSON"),
        ("a.json", b'{"i": "a.py"}', "entry 1: files is not a list of paths"),
        ("a.json", b"[]", "a.json has no lists of files"),
        ("gone.jsonl", None, "gone.jsonl: No such file"),
    ],
)
def test_an_invalid_list_raises_with_the_line(tmp_path, name, content, reason) -> None:
    path = Path(tmp_path, name)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        read_lists(path)
    assert name in str(caught.value)


def test_a_list_may_be_a_json_object(tmp_path) -> None:
    path = tmp_path / "list.json"
    path.write_text('{"i": ["a.py", "b.py", "a.py"]}')
    assert read_lists(path) == {"i": ("a.py", "b.py")}
