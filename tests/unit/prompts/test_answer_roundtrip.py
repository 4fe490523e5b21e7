"""render_answer and extract_patch undo each other, for any edit of any text."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings, strategies as st
from shorthand import extract_patch, render_answer

# Few different lines, so that a search text is often not unique at first.
LINES = st.sampled_from(
    [
        "",
        "a",
        "b",
        "  a",
        "a ",
        "x = 1",
        "é",
        "日本",
        "\x0c",
        "a\u2028b",
        "-- c",
        "++ d",
        "\\e",
        "@@",
    ]
)
FORMS = pytest.mark.parametrize("form", ["diff", "search-replace"])


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    lines = draw(st.lists(LINES, max_size=30))
    end = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    text = end.join(lines) + (end if lines and draw(st.booleans()) else "")
    return text.encode()


@st.composite
def edited(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` with lines inserted, deleted and replaced in a few places."""
    lines = content.split(b"\n")
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(lines)))
        end = draw(st.integers(start, min(len(lines), start + 3)))
        new = draw(st.lists(LINES, max_size=3))
        lines[start:end] = [line.encode() for line in new]
    return b"\n".join(lines)


@st.composite
def trees(draw: st.DrawFn) -> tuple[dict[str, bytes], dict[str, bytes]]:
    old = {"keep.txt": b"kept\n"}
    new = dict(old)
    for path in draw(
        st.sets(st.sampled_from(["a.py", "src/b c.py", "src/é.py"]), min_size=1)
    ):
        before = draw(contents())
        fate = draw(
            st.sampled_from(["edit", "edit", "edit", "create", "delete", "move"])
        )
        if fate != "create":
            old[path] = before
        if fate == "create":
            new[path] = before
        elif fate == "edit":
            new[path] = draw(edited(before))
        elif fate == "move":
            new[f"moved/{path}"] = before
    return old, new


@pytest.mark.parametrize(
    ("form", "context"),
    [("diff", None), ("search-replace", None), ("search-replace", 0)],
)
@given(pair=trees())
@example(pair=({"a": b"x"}, {"a": b"x\n"}))
@example(pair=({"a": b"x\n"}, {"a": b"x"}))
@example(pair=({"a": b"x\ny"}, {"a": b"x\n"}))
@example(pair=({"a": b"x\ny"}, {"a": b"x"}))
@example(pair=({"a": b"x\ny"}, {"a": b"z\ny"}))
@example(pair=({"a": b""}, {"a": b"x"}))
@example(pair=({"a": b"x"}, {"a": b""}))
@example(pair=({"a": b"x"}, {"a": b"\n"}))
@example(pair=({}, {"a": b""}))
@example(pair=({"a": b""}, {}))
@example(pair=({}, {"src/b c.py": b""}))
@example(pair=({"a": b"x\r\ny\r\n"}, {"a": b"x\ny\r\n"}))
@example(
    pair=({"a": b"\xe9\n" * 9 + b"x\n"}, {"a": b"\xe9\n" * 9 + b"y\n" + b"z\n" * 9})
)
@settings(max_examples=20, deadline=None)
def test_the_answer_gives_the_gold_tree(shared_workshop, form, context, pair) -> None:
    old, new = pair
    if old == new:
        return
    instance = shared_workshop.instance(old, new)
    try:
        answer = render_answer(form, instance, context=context)
    except ValueError as error:
        before, after = old.get("src/b c.py"), new.get("src/b c.py")
        begun = not before and after is not None and after != before
        wanted = "a block cannot name the path" if begun else "UTF-8"
        assert wanted in str(error)
        return
    extracted = extract_patch(form, answer, instance)
    assert str(extracted.extraction) == "ok"
    assert shared_workshop.applied(old, extracted.patch) == new


@st.composite
def answers(draw: st.DrawFn) -> str:
    """Pieces of both forms in any order, which reach more code than plain text."""
    pieces = st.sampled_from(
        [
            "a.py", "../a.py", "/etc/passwd", "# a.py", "```", "```python", "text", "", "x", "\r",
            "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE", "<<<<<<< DELETE", ">>>>>>> DELETE",
            "<<<<<<< RENAME", ">>>>>>> RENAME", "\\ No newline at end of file",
            "diff --git a/a.py b/a.py", "--- a/a.py", "+++ b/a.py", "--- /dev/null", "+++ /dev/null",
            "@@ -1 +1 @@", "@@ -1,3 +1,9 @@", "@@ -0,0 +1 @@", "@@", "-x", "+y", " x", "-- ",
            "new file mode 100644", "deleted file mode 100644", "rename from a.py", "rename to b.py",
            "GIT binary patch", "Binary files a/a.py and b/a.py differ", "old mode 100644",
            "<patch>", "</patch>", "<answer>", "</answer>", "<think>", "</think>", "@@ f @@", "--- a.py",
            "+++ a.py", "+++ b/x/a.py", "--- a/dev/null", "@@ -0,0 +1,4 @@", "@@ -9,1 +9,1 @@ f",
            'diff --git "a/\\056\\056/x" "b/\\q"', "diff --git a b", "index 12..34 160000",
        ]
    )  # fmt: skip
    return "\n".join(draw(st.lists(pieces | st.text(max_size=5), max_size=25)))


@FORMS
@given(text=answers() | st.text(st.characters(exclude_categories=())))
@settings(max_examples=300, deadline=None)
def test_no_text_makes_extraction_raise(small, form, text) -> None:
    extracted = extract_patch(form, text, small)
    failed = extracted.extraction.failed
    assert failed == (extracted.patch == "")
    assert extracted.extraction.reason.isprintable()
