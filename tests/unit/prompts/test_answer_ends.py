"""Answers that break off, and what stands beside or behind their patch."""

from __future__ import annotations

import pytest
from damage import Memory, applied
from hypothesis import given, settings, strategies as st

from swebench_trainer.answers.forms import extract_patch

BLOCK = "pkg/a.py\n<<<<<<< SEARCH\nx = 1\n=======\nx = 2\n>>>>>>> REPLACE\n"
SECOND = "\n### `pkg/b.py`\n```python\n<<<<<<< SEARCH\ny = 1\n=======\ny = 2\n>>>>>>> REPLACE\n```\n"
TREE = {"pkg/a.py": b"x = 1\n", "pkg/b.py": b"y = 1\n"}
DIFF = "--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x\n+y\n"
FILES = {"a.py": b"x\n", "i.png": b"\0"}
CUT = "malformed: the answer breaks off inside its patch"


def blocks(tail: str, finish: str) -> str:
    answer = extract_patch("search-replace", BLOCK + tail, Memory(TREE), finish=finish)
    return str(answer.extraction)


@pytest.mark.parametrize("finish", ["length", ""])
@pytest.mark.parametrize(
    "tail",
    [
        *("\npkg/b", "\npkg/b.py", "\n`pkg", "\n### `pkg/b", "\n**pkg/b.py**", "\nnew/c"),
        *("\npkg/b.py\n<", "\npkg/b.py\n<<<", "\n```python\npkg/b.py\n<<<<", "\n```python\n"),
        "\nNext:\n```python",
        "\n<think>no</think>\npkg/b",
    ],
)  # fmt: skip
def test_an_answer_may_break_off_before_its_next_block(tail, finish) -> None:
    if "<think>" in tail:  # the thought hides the first block
        assert extract_patch(
            "search-replace", BLOCK + tail, Memory(TREE), finish=finish
        ).extraction.failed
    else:
        assert blocks(tail, finish).startswith("malformed")


@pytest.mark.parametrize("tail", ["", "\n```\n", "\nutil", "\n**", "\n#"])
def test_at_the_token_limit_a_word_may_be_the_start_of_a_path(tail) -> None:
    assert blocks(tail, "length") == CUT
    assert not blocks(tail, "stop").startswith("malformed")


@pytest.mark.parametrize("finish", ["length", "", "stop"])
@pytest.mark.parametrize(
    "tail", ["\nDone.", "\nThis", "\nAll of it is done", "\n```\npytest -q\n```\n"]
)
def test_prose_behind_the_last_block_shows_that_it_is_complete(tail, finish) -> None:
    assert blocks(tail, finish).startswith("repaired")


@given(length=st.integers(1, len(SECOND) - 1))
@settings(max_examples=40, deadline=None)
def test_a_cut_inside_the_second_block_never_leaves_the_first_alone(length) -> None:
    tail = SECOND[:length].rstrip("\n`")
    complete = tail.endswith(">>>>>>> REPLACE")
    assert blocks(tail, "length") == CUT or not complete
    assert blocks(tail, "length").startswith("malformed")


@pytest.mark.parametrize(
    "marker", ["<<<<<<< HEAD", "<<<<<< SEARCH", "<<<<<<< search", "  <<<<<<< SEARCH"]
)
def test_a_block_with_a_malformed_marker_is_not_left_out(marker) -> None:
    second = SECOND.replace("<<<<<<< SEARCH", marker)
    assert blocks(second, "stop").startswith("malformed")


def test_a_path_on_the_line_of_a_fence_is_refused() -> None:
    second = BLOCK.replace("pkg/a.py", "```python pkg/b.py")
    reason = "malformed: the path of a block is on the line of a fence"
    assert blocks(second, "stop") == reason


BARE = DIFF[:-1]
GLUED = {
    f"{BARE}<|im_end|>": "prose",
    f"{BARE}<|endoftext|><|im_end|>\n": "prose",
    f"{BARE}</s>": "prose",
    f"{BARE}[EOS]": "prose",
    f"{BARE}<\uff5cend\u2581of\u2581sentence\uff5c>": "prose",
    f"{BARE}<|im_end|>\n<|im_start|>user\nThanks": "prose",
    f"<think>x</think>\n{BARE}<|return|>": "thoughts+prose",
    f"<patch>\n{BARE}<|im_end|>\n</patch>": "tags+prose",
    f"<patch>\n{BARE}</patch><|im_end|>": "tags",
    f"```diff\n{BARE}```": "fences",
    f"```diff\n{BARE}```\nDone.\n": "fences+prose",
    f"~~~\n{BARE}~~~": "fences",
}


@pytest.mark.parametrize(("answer", "repairs"), GLUED.items())
def test_what_is_glued_to_the_last_line_is_removed(answer, repairs) -> None:
    found = extract_patch("diff", answer, Memory(FILES), finish="stop")
    assert (found.patch, str(found.extraction)) == (DIFF, f"repaired: {repairs}")


@pytest.mark.parametrize("answer", [f"{BARE}```", f"```diff\n{BARE}``` Done."])
def test_a_glued_fence_that_may_be_content_is_refused(answer) -> None:
    found = extract_patch("diff", answer, Memory(FILES), finish="stop")
    assert found.extraction.failed and not found.patch


@pytest.mark.parametrize(
    ("line", "old"),
    [
        ("<|im_end|>", b"x\n"),
        ("<|im_start|>a<|im_end|>", b"x\n"),
        ("a<|im_end|>", b"x\n# <|im_end|>\n"),
        ("a ```b```", b"x\n"),
        ("```", b"x\n"),
    ],
)
def test_tokens_and_fences_that_are_content_stay(line, old) -> None:
    answer = DIFF.replace("+y", f"+{line}")
    if old.count(b"\n") > 1:
        answer = answer.replace("@@ -1 +1 @@", "@@ -1,2 +1,2 @@")
        answer = answer.replace("-x\n", " x\n-# <|im_end|>\n")
    found = extract_patch("diff", answer, Memory({"a.py": old}), finish="stop")
    assert found.patch == answer


@pytest.mark.parametrize(
    "behind", ["<|im_end|>", "```", "</s>\n", " </answer>", "</think>\n" + BLOCK]
)
def test_what_is_glued_to_a_block_is_removed(behind) -> None:
    assert blocks("", "stop") == "ok"
    answer = BLOCK[:-1] + behind
    found = extract_patch("search-replace", answer, Memory(TREE), finish="stop")
    assert found.patch.count("+x = 2") == 1


BINARY = (
    "diff --git a/i.png b/i.png\nindex 1..2 100644\nBinary files a/i.png and b/i.png differ\n",
    "Binary files old/i.png and new/i.png differ\n",
    "diff --git a/i.png b/i.png\nindex 1..2 100644\nGIT binary patch\nliteral 1\nA\n\n",
    "GIT binary patch \r\nliteral 1\nA\n\n",
)


@pytest.mark.parametrize("tree", [Memory(FILES), None])
@pytest.mark.parametrize("binary", BINARY)
def test_a_binary_part_beside_a_text_part_is_refused(binary, tree) -> None:
    for answer in (DIFF + binary, binary + DIFF):
        found = extract_patch("diff", answer, tree, finish="stop")
        assert str(found.extraction) == "malformed: the patch is binary"


NAMES = (
    'say "hi".py',
    "x b/y.py",
    "b/b b/b.py",
    "caf\u00e9.py",
    "back\\slash.py",
    "end ",
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["none", "counts", "headers", "quotes"])
def test_unusual_paths_are_right_or_refused(workshop, name, damage) -> None:
    body = b"".join(b"%d\n" % n for n in range(9))
    edited = body.replace(b"4", b"four")
    trees = (
        ({name: body}, {name: edited}),
        ({"k": b"k\n"}, {"k": b"k\n", name: body}),
        ({"k": b"k\n"}, {"k": b"k\n", name: b""}),
        ({name: body}, {f"new {name}": body}),
        ({name: body}, {f"new {name}": edited}),
        ({name: body, "k": b"k\n"}, {"k": b"k\n"}),
    )
    for old, new in trees:
        answer = workshop.instance(old, new).patch
        if damage == "counts":
            answer = answer.replace("@@ -1,8 +1,8 @@", "@@ -1,9 +1,9 @@")
        elif damage == "headers":
            lines = answer.split("\n")
            kept = [x for x in lines if not x.startswith(("--- ", "+++ "))]
            answer = "\n".join(kept)
        elif damage == "quotes":
            answer = answer.replace('"a/', "a/").replace('"b/', "b/")
            answer = answer.replace('"\n', "\n")
        found = extract_patch("diff", answer, Memory(old), finish="stop")
        if damage == "none" and '"' not in name:
            assert found.patch
        assert not found.patch or applied(old, found.patch) in (None, new)


@pytest.mark.parametrize("line", ['"n.py"', "'n.py'", '`"n.py"`'])
def test_quotes_around_the_path_of_a_block_are_no_part_of_it(line) -> None:
    answer = f"{line}\n<<<<<<< SEARCH\n=======\nz\n>>>>>>> REPLACE\n"
    found = extract_patch("search-replace", answer, Memory(TREE), finish="stop")
    assert "+++ b/n.py\n" in found.patch
