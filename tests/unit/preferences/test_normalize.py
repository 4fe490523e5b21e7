"""Which patches count as equal."""

from __future__ import annotations

import difflib

import pytest

from swebench_trainer.contents.directory import Directory
from swebench_trainer.preferences.normalize import changed_lines, form_in

PYTHON = '''\
"""Adds."""

def add(a, b):
    """The sum."""
    total = 0
    for n in (a, b):
        total -= n
    return total
'''
SCRIPT = "const url = 'http://a.example//x'; // where\nfetch(url);\n"


def diff(path: str, old: str, new: str, context: int = 3) -> str:
    sides = ([f"{line}\n" for line in x.split("\n")[:-1]] for x in (old, new))
    lines = difflib.unified_diff(*sides, f"a/{path}", f"b/{path}", n=context)
    return "".join(lines)


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "a.py").write_text(PYTHON)
    (tmp_path / "a.js").write_text(SCRIPT)
    return Directory(tmp_path)


def form(tree, new: str, path: str = "a.py", old: str = PYTHON, context: int = 3):
    return form_in(tree, diff(path, old, new, context))


FIXED = PYTHON.replace("total -= n", "total += n")


@pytest.mark.parametrize(
    "again",
    [
        FIXED.replace("total += n", "total  +=  n  # not minus"),
        FIXED.replace('"""The sum."""', '"""The sum of both."""'),
        FIXED.replace('    """The sum."""\n', ""),
        FIXED.replace(
            "(a, b):\n        total", "(a,\n              b):\n        total"
        ),
    ],
)
def test_comments_docstrings_and_layout_of_python_are_ignored(tree, again) -> None:
    assert form(tree, again) == form(tree, FIXED) != form(tree, PYTHON + "\nx = 1\n")
    assert form(tree, FIXED, context=0) == form(tree, FIXED)


def test_indentation_of_python_is_significant(tree) -> None:
    early = FIXED.replace("    return total", "        return total")
    assert form(tree, early) != form(tree, FIXED)
    assert changed_lines(diff("a.py", FIXED, early)) == (
        "a.py",
        "-    return total",
        "+        return total",
    )


def test_a_python_file_that_does_not_parse_is_compared_by_its_lines(tree) -> None:
    broken = FIXED.replace("def add(a, b):", "def add(a, b:")
    spaced = broken.replace("total += n", "total  += n  # so")
    assert form(tree, broken) == form(tree, spaced) != form(tree, FIXED)


def test_other_languages_are_compared_without_whitespace_and_comments(tree) -> None:
    def script(new: str):
        return form(tree, new, "a.js", SCRIPT)

    new = SCRIPT.replace("fetch(url)", "fetch(url, {})")
    for again in (
        new.replace("// where", "// from where"),
        new.replace("url, {}", "url,{ }"),
        new + "/* the end */\n\n",
    ):
        assert script(again) == script(new)
    assert script(new.replace("example//x", "example//y")) != script(new)


def test_significant_whitespace_is_kept(tree) -> None:
    def lines(path, text):
        return changed_lines(diff(path, "", text))

    assert lines("a.yml", "b: 1\n") != lines("a.yml", "  b: 1\n")
    assert lines("a.py", "x = 1\n") != lines("a.py", "    x = 1\n")
    assert lines("a.py", 'x = "a b"\n') != lines("a.py", 'x = "ab"\n')
    assert lines("a.py", "notx\n") != lines("a.py", "not x\n")
    assert lines("a.js", "  f( x );\n") == lines("a.js", "f(x);\n")
    assert lines("a.yml", "b:  1  # so\n") == lines("a.yml", "b: 1\n")


def test_a_patch_that_does_not_apply_has_no_form(tree) -> None:
    assert form_in(tree, diff("a.py", PYTHON.replace("Adds", "Added"), FIXED)) is None
    assert form_in(tree, "--- a/../x\n+++ b/../x\n@@ -1 +1 @@\n-x\n+y\n") is None
    assert form_in(tree, "no patch at all") is None
    assert form_in(tree, "") is None


def test_new_moved_and_deleted_files_are_significant(tree) -> None:
    new = "--- /dev/null\n+++ b/{}.py\n@@ -0,0 +1 @@\n+x = 1\n"
    assert form_in(tree, new.format("b")) != form_in(tree, new.format("c"))
    moved = "diff --git a/a.py b/c.py\nsimilarity index 100%\nrename from a.py\nrename to c.py\n"
    gone = diff("a.py", PYTHON, "").replace("+++ b/a.py", "+++ /dev/null")
    forms = {form_in(tree, patch) for patch in (moved, gone, new.format("b"))}
    assert len(forms) == 3 and None not in forms


def test_without_files_a_patch_is_compared_by_its_changed_lines() -> None:
    one = diff("a.py", PYTHON, FIXED)
    again = diff("a.py", PYTHON, FIXED.replace("+= n", "+=  n  # so"), context=0)
    assert changed_lines(one) == changed_lines(again)
    assert changed_lines(one) != changed_lines(one.replace("a.py", "b.py"))
    assert changed_lines(diff("a.sh", "a\n", "b ${c#d}\n")) != changed_lines(
        diff("a.sh", "a\n", "b ${c#e}\n")
    )
    assert changed_lines("") == changed_lines("prose") == ()
    assert changed_lines(diff("a.py", "x = 1\n", "x = 1\n# so\n")) == ()


def test_deeply_nested_code_is_compared_by_its_lines(tree) -> None:
    deep = PYTHON + "x = " + "(" * 5000 + ")" * 5000 + "\n"
    assert form(tree, deep) is not None


def test_line_endings_do_not_hide_a_change(tree) -> None:
    windows = FIXED.replace("\n", "\r\n")
    assert form(tree, windows) == form(tree, FIXED)
    odd = FIXED.replace("total = 0", "total = 0\r\r\r")
    assert form(tree, odd + "x = 1\n") != form(tree, odd + "x = 2\n")


def test_statements_that_share_a_line_are_compared_whole(tree) -> None:
    text = FIXED + 'a = """\n"""; b = {}\n'
    assert form(tree, text.format(1)) != form(tree, text.format(2))
    short = FIXED + "a = 1; b = {}\n"
    assert form(tree, short.format(1)) != form(tree, short.format(2))
