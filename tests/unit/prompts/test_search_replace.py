"""The search-replace form: rendering, accepted answers, and refusals."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from shorthand import extract_patch, render_answer

FORM = "search-replace"


def block(path: str, search: str, replace: str) -> str:
    return f"{path}\n<<<<<<< SEARCH\n{search}=======\n{replace}>>>>>>> REPLACE\n"


FIX = block("a.py", "x\n", "y\n")


def test_context_grows_until_the_search_text_is_unique(workshop) -> None:
    old = b"def f():\n    return 1\n\n\n\n\ndef g():\n    return 1\n\n\n\n"
    new = old[::-1].replace(b"1 nruter", b"2 nruter", 1)[::-1]
    answer = render_answer(FORM, workshop.instance({"a.py": old}, {"a.py": new}))
    assert answer == block(
        "a.py",
        "\n\ndef g():\n    return 1\n\n\n\n",
        "\n\ndef g():\n    return 2\n\n\n\n",
    )


@pytest.mark.parametrize(
    ("context", "search"),
    [(None, "1\n2\n3\n4\n5\n6\n7\n"), (1, "3\n4\n5\n"), (0, "4\n")],
)
def test_the_requested_amount_of_context_is_quoted(workshop, context, search) -> None:
    old = {"a.py": b"0\n1\n2\n3\n4\n5\n6\n7\n8\n"}
    instance = workshop.instance(old, {"a.py": old["a.py"].replace(b"4", b"x")})
    answer = render_answer(FORM, instance, context=context)
    assert answer == block("a.py", search, search.replace("4", "x"))


@pytest.mark.parametrize(
    ("old", "new", "search"),
    [
        ("1\n2\n3\n", "1\n2\nx\n3\n", "2\n3\n"),  # an insertion has no old lines
        ("1\n1\n2\n", "1\n2\n", "1\n1\n"),  # the line occurs twice
        ("1\n1\n2\n", "1\nx\n2\n", "1\n1\n2\n"),
    ],
)
def test_more_context_is_quoted_where_less_would_be_ambiguous(
    workshop, old, new, search
) -> None:
    instance = workshop.instance({"a.py": old.encode()}, {"a.py": new.encode()})
    answer = render_answer(FORM, instance, context=0)
    assert (
        search in answer
        and str(extract_patch(FORM, answer, instance).extraction) == "ok"
    )


def test_overlapping_hunks_of_a_file_are_merged(workshop) -> None:
    old = b"a\n" * 40
    new = b"b\n" + b"a\n" * 38 + b"b\n"
    instance = workshop.instance({"a.py": old}, {"a.py": new})
    assert instance.patch.count("@@ -") == 2
    answer = render_answer(FORM, instance)
    assert answer.count("<<<<<<< SEARCH") == 1
    assert workshop.applied(
        {"a.py": old}, extract_patch(FORM, answer, instance).patch
    ) == {"a.py": new}


def test_each_hunk_of_each_file_becomes_one_block(workshop) -> None:
    old = {"a.py": b"".join(b"%d\n" % i for i in range(40)), "b.py": b"x\n"}
    new = {
        "a.py": old["a.py"].replace(b"\n2\n", b"\n").replace(b"37", b"Z"),
        "c.py": b"new\n",
    }
    answer = render_answer(FORM, workshop.instance(old, new))
    assert answer.count("a.py\n<<<<<<< SEARCH") == 2
    assert "b.py\n<<<<<<< DELETE\n>>>>>>> DELETE\n" in answer
    assert block("c.py", "", "new\n") in answer


def test_edits_of_a_renamed_file_use_the_old_path(workshop) -> None:
    body = b"".join(b"%d\n" % i for i in range(40))
    old, new = {"a.py": body}, {"b/c.py": body.replace(b"20", b"Z")}
    instance = workshop.instance(old, new)
    answer = render_answer(FORM, instance)
    assert answer.startswith(
        "a.py\n<<<<<<< RENAME\nb/c.py\n>>>>>>> RENAME\n\na.py\n<<<<<<< SEARCH\n"
    )
    patch = extract_patch(FORM, answer, instance).patch
    assert "rename from a.py\nrename to b/c.py\n" in patch
    assert workshop.applied(old, patch) == new


def test_blocks_quote_the_hunks_without_a_snapshot(small) -> None:
    blind = dataclasses.replace(small, snapshot="")
    assert render_answer(FORM, blind) == FIX
    assert (
        str(extract_patch(FORM, FIX, blind).extraction)
        == "malformed: the repository's files are not known"
    )


NOT_EXPRESSIBLE = {
    "mode": "old mode 100644\nnew mode 100755\n",
    "mode 100755": "new file mode 100755\n--- /dev/null\n+++ b/a.py\n@@ -0,0 +1 @@\n+x\n",
    "binary": "index 12..34 100644\nBinary files a/a.py and b/a.py differ\n",
    "copy": "similarity index 100%\ncopy from a.py\ncopy to a.py\n",
    "symbolic link": "index 12..34 120000\n--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x\n+y\n",
    "marker": "--- a/a.py\n+++ b/a.py\n@@ -1 +1,2 @@\n x\n+=======\n",
    "does not fit": "--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-z\n+y\n",
    "well-formed": "--- a/a.py\n+++ b/a.py\n@@ -1,5 +1 @@\n-x\n+y\n",
}


@pytest.mark.parametrize(("reason", "patch"), NOT_EXPRESSIBLE.items())
def test_changes_that_blocks_cannot_express_raise(small, reason, patch) -> None:
    instance = dataclasses.replace(small, patch=f"diff --git a/a.py b/a.py\n{patch}")
    with pytest.raises(ValueError, match=reason):
        render_answer(FORM, instance)


def test_a_patch_with_wrong_line_numbers_is_rendered_where_git_applies_it(
    workshop,
) -> None:
    lines = [b"%d\n" % n for n in range(30)]
    old = {"a.py": b"".join(lines), "run.sh": b"1\n"}
    new = {"a.py": b"".join(lines).replace(b"9\n10\n", b"9\nnew\n"), "run.sh": b"2\n"}
    instance = workshop.instance(old, new)
    moved = dataclasses.replace(
        instance, patch=instance.patch.replace("@@ -8,7 +8,7 @@", "@@ -3,7 +3,7 @@")
    )
    assert moved.patch != instance.patch
    assert render_answer(FORM, moved) == render_answer(FORM, instance)


def test_the_patch_equals_the_one_written_by_git(small) -> None:
    assert extract_patch(FORM, FIX, small).patch == small.patch


def test_new_and_deleted_files_have_git_headers(small) -> None:
    answer = block("new/b.py", "", "1\n") + "a.py\n<<<<<<< DELETE\n>>>>>>> DELETE\n"
    patch = extract_patch(FORM, answer, small).patch
    assert "diff --git a/a.py b/a.py\ndeleted file mode 100644\n" in patch
    assert "diff --git a/new/b.py b/new/b.py\nnew file mode 100644\n" in patch
    assert "--- /dev/null\n+++ b/new/b.py\n@@ -0,0 +1 @@\n+1\n" in patch


def test_an_executable_file_stays_executable(workshop) -> None:
    instance = workshop.instance({"run.sh": b"x\n"}, {"run.sh": b"y\n"})
    Path(instance.snapshot, "run.sh").chmod(0o755)
    patch = extract_patch(FORM, block("run.sh", "x\n", "y\n"), instance).patch
    assert "index 587be6b..975fbec 100755\n" in patch


def test_bytes_that_are_not_utf8_survive_an_edit_of_other_lines(workshop) -> None:
    old = {"a.py": b"# caf\xe9\nx\n"}
    instance = workshop.instance(old, old | {"b": b""})
    patch = extract_patch(FORM, FIX, instance).patch
    assert workshop.applied(old, patch) == {"a.py": b"# caf\xe9\ny\n"}


def test_attributes_in_the_repository_do_not_change_the_patch(workshop) -> None:
    old = {".gitattributes": b"* binary eol=crlf\n", "a.py": b"x\n"}
    instance = workshop.instance(old, old | {"a.py": b"y\n"})
    answer = block(".gitattributes", "* binary eol=crlf\n", "* -diff\n") + FIX
    assert "-x\n+y\n" in extract_patch(FORM, answer, instance).patch


TOLERATED = {
    "repaired: fences": f"```\n{FIX}```\n",
    "repaired: prose": f"The fix:\n\n{FIX}\nDone.",
    "repaired: fences+prose": f"The fix:\n```python\n{FIX}```\nDone.",
    "repaired: path": FIX.replace("a.py", "### `a.py`", 1),
    "repaired: fences+path": FIX.replace("a.py\n", "**a.py**:\n```\n", 1) + "```",
    "repaired: crlf": FIX.replace("\n", "\r\n"),
    "ok": FIX.replace("SEARCH", "SEARCH  ").replace("=\n", "=\t\n"),
}


@pytest.mark.parametrize(("status", "answer"), TOLERATED.items())
def test_tolerated_damage_is_recorded_as_a_repair(small, status, answer) -> None:
    extracted = extract_patch(FORM, answer, small)
    assert (str(extracted.extraction), extracted.patch) == (status, small.patch)


def test_a_draft_in_thoughts_is_not_the_answer(small) -> None:
    draft = block("a.py", "x\n", "z\n")
    for thoughts in (f"<think>\n{draft}</think>\n", f"{draft}No.\n</think>\n\n"):
        extracted = extract_patch(FORM, thoughts + FIX, small)
        assert str(extracted.extraction) == "repaired: thoughts"
        assert extracted.patch == small.patch


def test_a_line_of_a_file_may_look_like_the_end_of_a_thought(workshop) -> None:
    old, new = {"a": b"<think>\n</think>\n"}, {"a": b"x\n</think>\n"}
    instance = workshop.instance(old, new)
    extracted = extract_patch(FORM, render_answer(FORM, instance), instance)
    assert (str(extracted.extraction), extracted.patch) == ("ok", instance.patch)


def test_a_block_without_a_path_edits_the_file_of_the_block_before(workshop) -> None:
    instance = workshop.instance({"a.py": b"x\ny\n"}, {"a.py": b"1\n2\n"})
    second = block("", "y\n", "2\n").lstrip("\n")
    extracted = extract_patch(FORM, block("a.py", "x\n", "1\n") + second, instance)
    assert extracted.patch == instance.patch


def test_the_order_of_blocks_does_not_matter(workshop) -> None:
    """Every block refers to the file before the answer, not to the result of another block."""
    old = {"a.py": b"x\ny\nz\n"}
    instance = workshop.instance(old, {"a.py": b"y\nw\nx\ny\n"})
    blocks = [
        block("a.py", "x\n", "y\nw\n"),
        block("a.py", "y\n", "x\n"),
        block("a.py", "z\n", "y\n"),
    ]
    for order in (blocks, blocks[::-1], [blocks[1], blocks[2], blocks[0]]):
        extracted = extract_patch(FORM, "\n".join(order), instance)
        assert extracted.patch == instance.patch


def test_a_crlf_file_accepts_lf_blocks_and_stays_crlf(workshop) -> None:
    old, new = {"a.py": b"x\r\nz\r\n"}, {"a.py": b"y\r\nz\r\n"}
    instance = workshop.instance(old, new)
    extracted = extract_patch(FORM, FIX, instance)
    assert str(extracted.extraction) == "repaired: crlf"
    assert workshop.applied(old, extracted.patch) == new


REFUSED = {
    "": "the answer has no patch",
    "  \n": "the answer has no patch",
    "I cannot help with that.": "the answer has no patch",
    block("a.py", "z\n", "y\n"): "search text not found in a.py",
    block("a.py", "", "y\n"): "search text is empty, but a.py is not",
    block("b.py", "x\n", "y\n"): "search text not found in b.py",
    block("a.py", "x\n", "x\n"): "the answer changes nothing",
    block("two.py", "d\n", "y\n"): "search text is not unique in two.py",
    block("two.py", "d\ne\n", "y\n") + block("two.py", "e\nd\n", "z\n"): (
        "two blocks change the same lines of two.py"
    ),
    # Whole lines only: "x" must not be found in "  x".
    block("indented.py", "x\n", "y\n"): "search text not found in indented.py",
    block("nul.bin", "x\n", "y\n"): "nul.bin is a binary file",
    block("dir", "x\n", "y\n"): "dir is not a file",
    block("n", "", "1\n")
    + block("n/m", "", "2\n"): "a file and a directory have the same name",
    FIX
    + "a.py\n<<<<<<< DELETE\n>>>>>>> DELETE\n": "the blocks of a.py contradict each other",
    "b.py\n<<<<<<< DELETE\n>>>>>>> DELETE\n": "the file b.py does not exist",
    "a.py\n<<<<<<< RENAME\ntwo.py\n>>>>>>> RENAME\n": "two.py already exists",
    "a.py\n<<<<<<< RENAME\na.py\n>>>>>>> RENAME\n": "the answer changes nothing",
    FIX.removesuffix(">>>>>>> REPLACE\n"): "a block is not finished",
    FIX.replace("=======\n", ""): "a block has 0 dividers instead of one",
    FIX.replace(
        "=======\n", "=======\n=======\n"
    ): "a block has 2 dividers instead of one",
    FIX.replace("a.py\n", ""): "a block has no path",
    FIX.replace("<<<<<<< SEARCH\n", ""): "a block has no opening marker",
    block("a.py", "x\n", "y\n\0"): "the answer is not valid text",
    block("a.py", "x\n", "\ud800\n"): "the answer is not valid text",
}


@pytest.fixture
def shelf(workshop):
    tree = {
        "a.py": b"x\n",
        "two.py": b"d\ne\nd\n",
        "indented.py": b"  x\n",
        "nul.bin": b"x\n\0",
        "dir/file.py": b"",
    }
    return workshop.instance(tree, tree | {"b": b"1\n"})


@pytest.mark.parametrize(("answer", "why"), REFUSED.items())
def test_refusals_have_a_reason(shelf, answer, why) -> None:
    extracted = extract_patch(FORM, answer, shelf)
    assert (extracted.patch, extracted.extraction.reason) == ("", why)
    assert extracted.extraction.failed


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../a.py", "s/../../a.py", ".git/config", "s/.GIT/hooks/x", "a//b",
     "link.py", "folder/secret", "a.py/b", "a\tb", "x" * 5000],
)  # fmt: skip
def test_paths_outside_the_snapshot_are_refused(workshop, tmp_path, path) -> None:
    outside = workshop.write({"secret": b"x\n"})
    instance = workshop.instance({"a.py": b"x\n"}, {"a.py": b"y\n"})
    Path(instance.snapshot, "link.py").symlink_to(outside / "secret")
    Path(instance.snapshot, "folder").symlink_to(outside)
    for answer in (
        block(path, "x\n", "y\n"),
        block(path, "", "y\n"),
        f"a.py\n<<<<<<< RENAME\n{path}\n>>>>>>> RENAME\n",
        f"{path}\n<<<<<<< DELETE\n>>>>>>> DELETE\n",
    ):
        assert (
            str(extract_patch(FORM, answer, instance).extraction)
            == "malformed: unsafe path"
        )


@pytest.mark.parametrize(
    "line", ["Now a helper:", "Now a helper", "Helper:", "## Helper"]
)
def test_prose_does_not_name_a_new_file(small, line) -> None:
    answer = FIX + f"{line}\n" + block("", "", "z = 1\n").lstrip("\n")
    extracted = extract_patch(FORM, answer, small, finish="stop")
    assert extracted.patch == ""
    assert extracted.extraction.reason.endswith("may not be a path")


@pytest.mark.parametrize("line", ["n.py", "`n.py`", "### `n.py`:", "**`n.py`**"])
def test_the_path_of_a_new_file_may_be_in_backticks(small, line) -> None:
    answer = f"{line}\n" + block("", "", "z = 1\n").lstrip("\n")
    assert "+++ b/n.py" in extract_patch(FORM, answer, small, finish="stop").patch


def test_a_new_file_with_a_space_in_its_path_cannot_be_rendered(workshop) -> None:
    instance = workshop.instance({"a.py": b"1\n"}, {"a.py": b"1\n", "b c.py": b"2\n"})
    with pytest.raises(ValueError, match="a block cannot name the path"):
        render_answer(FORM, instance)


def test_an_answer_cut_off_after_a_block_is_incomplete(small) -> None:
    for answer in (FIX, f"```\n{FIX}```\n"):
        extracted = extract_patch(FORM, answer, small, finish="length")
        assert (
            str(extracted.extraction)
            == "malformed: the answer breaks off inside its patch"
        )
    assert extract_patch(FORM, f"{FIX}\nThis", small, finish="length").patch


def test_line_endings_of_a_new_file_are_ambiguous_if_others_were_wrong(small) -> None:
    answer = (FIX + block("n.py", "", "z\n")).replace("\n", "\r\n")
    extracted = extract_patch(FORM, answer, small, finish="stop")
    assert (
        str(extracted.extraction) == "malformed: the line endings of n.py are ambiguous"
    )
