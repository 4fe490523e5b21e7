"""The diff form: the patch is found, mended a little, or refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from swebench_trainer.prompts.answers import extract_patch, render_answer

FORM = "diff"

HEADER = (
    "diff --git a/a.py b/a.py\nindex 587be6b..975fbec 100644\n--- a/a.py\n+++ b/a.py\n"
)
FIX = f"{HEADER}@@ -1 +1 @@\n-x\n+y\n"
PLAIN = "--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x\n+y\n"


def test_the_gold_patch_is_the_answer_as_it_is(small) -> None:
    assert render_answer(FORM, small) == small.patch == FIX


@pytest.mark.parametrize("patch", ["", " \n"])
def test_an_empty_gold_patch_is_no_answer(small, patch) -> None:
    with pytest.raises(ValueError, match="empty"):
        render_answer(FORM, dataclasses.replace(small, patch=patch))


MENDED = {
    FIX: ("ok", FIX),
    PLAIN: ("ok", PLAIN),
    FIX.rstrip("\n"): ("repaired:final-newline", FIX),
    f"```diff\n{FIX}```": ("repaired:fences", FIX),
    f"Here it is.\n\n{FIX}\nDone.\n": ("repaired:prose", FIX),
    f"First:\n```diff\n{FIX}```\nthen\n```diff\n{PLAIN.replace('a.py', 'b.py')}```\n": (
        "repaired:prose+fences",
        FIX + PLAIN.replace("a.py", "b.py"),
    ),
    FIX.replace("\n", "\r\n"): ("repaired:crlf", FIX),
    # Counts that are too high, too low, or cut off by a fence.
    f"{HEADER}@@ -1,4 +1,9 @@ def f\n-x\n+y\n": (
        "repaired:hunk-counts",
        f"{HEADER}@@ -1,1 +1,1 @@ def f\n-x\n+y\n",
    ),
    f"{HEADER}@@ -1 +1 @@\n-x\n+y\n+z\n": (
        "repaired:hunk-counts",
        f"{HEADER}@@ -1,1 +1,2 @@\n-x\n+y\n+z\n",
    ),
    f"```\n{HEADER}@@ -1,7 +1,7 @@\n-x\n+y\n```\n": (
        "repaired:fences+hunk-counts",
        f"{HEADER}@@ -1,1 +1,1 @@\n-x\n+y\n",
    ),
    # A deleted line that looks like a file's header, and one that follows.
    f"{HEADER}@@ -1 +0,0 @@\n--- b/c.py\n": (
        "ok",
        f"{HEADER}@@ -1 +0,0 @@\n--- b/c.py\n",
    ),
    f"{HEADER}@@ -1,9 +1,9 @@\n-x\n+y\n{PLAIN}": (
        "repaired:hunk-counts",
        f"{HEADER}@@ -1,1 +1,1 @@\n-x\n+y\n{PLAIN}",
    ),
    # The signature of `git format-patch`.
    f"{FIX}-- \n2.39.5\n": ("repaired:prose", FIX),
    f"{FIX}\\ No newline at end of file\n": (
        "ok",
        f"{FIX}\\ No newline at end of file\n",
    ),
}


@pytest.mark.parametrize(("answer", "expected"), MENDED.items())
def test_the_patch_is_found_and_mended(small, answer, expected) -> None:
    extraction = extract_patch(FORM, answer, small)
    assert (extraction.status, extraction.patch) == expected


def test_a_crlf_answer_keeps_the_line_ends_of_a_crlf_file(workshop) -> None:
    old, new = {"a.py": b"x\r\n"}, {"a.py": b"y\r\n"}
    instance = workshop.instance(old, new)
    extraction = extract_patch(FORM, FIX.replace("\n", "\r\n"), instance)
    assert extraction.status == "repaired:crlf"
    assert workshop.applied(old, extraction.patch) == new


REFUSED = {
    "": "no answer",
    "No idea.\n- one\n+ two\n": "no answer",
    f"{HEADER}@@ def f @@\n-x\n+y\n": "a hunk without line numbers",
    f"{HEADER}@@ -1,3 +1,3 @@\n-x\nunmarked\n+y\n": "a hunk with a line that is not marked",
    f"{HEADER}@@ -1,3 +1,3 @@\n": "a hunk without lines",
    HEADER: "nothing changes",
    PLAIN.replace("a/a.py", "/dev/null").replace("b/a.py", "/dev/null"): (
        "not a well-formed patch"
    ),
    f"{HEADER}GIT binary patch\nliteral 0\n": "a binary patch",
    FIX.replace("b/a.py", "b/../a.py"): "unsafe path",
    PLAIN.replace("/a.py", "//etc/passwd"): "unsafe path",
    PLAIN.replace("a/a.py", "/etc/passwd"): "unsafe path",
    PLAIN.replace("/a.py", "/.git/hooks/pre-commit"): "unsafe path",
    FIX.replace("a/a.py b/a.py", '"a/\\056\\056/a.py" b/a.py', 1): "unsafe path",
    FIX.replace("y", "\0"): "not valid text",
}


@pytest.mark.parametrize(("answer", "why"), REFUSED.items())
def test_what_is_refused_says_why(small, answer, why) -> None:
    extraction = extract_patch(FORM, answer, small)
    assert (extraction.patch, extraction.status) == ("", f"failed:{why}")


def test_a_patch_through_a_symbolic_link_is_unsafe(workshop) -> None:
    instance = workshop.instance({"a.py": b"x\n"}, {"a.py": b"y\n"})
    (Path(instance.snapshot) / "link").symlink_to("/")
    answer = PLAIN.replace("/a.py", "/link/a.py")
    assert extract_patch(FORM, answer, instance).status == "failed:unsafe path"


def test_a_patch_is_found_without_a_snapshot_too(small) -> None:
    blind = dataclasses.replace(small, snapshot="")
    assert extract_patch(FORM, FIX, blind).status == "ok"
