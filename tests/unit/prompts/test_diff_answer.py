"""The diff form: the patch is found, repaired, or refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from shorthand import extract_patch, render_answer

from swebench_trainer.answers.diffs import ExtractedPatch
from swebench_trainer.recipe.models import REPAIRS
from swebench_trainer.types import Extraction, StaticChecks

FORM = "diff"

HEADER = (
    "diff --git a/a.py b/a.py\nindex 587be6b..975fbec 100644\n--- a/a.py\n+++ b/a.py\n"
)
FIX = f"{HEADER}@@ -1 +1 @@\n-x\n+y\n"
PLAIN = "--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x\n+y\n"


def test_the_diff_form_renders_the_gold_patch_unchanged(small) -> None:
    assert render_answer(FORM, small) == small.patch == FIX


@pytest.mark.parametrize("patch", ["", " \n"])
def test_an_empty_gold_patch_cannot_be_rendered(small, patch) -> None:
    with pytest.raises(ValueError, match="empty"):
        render_answer(FORM, dataclasses.replace(small, patch=patch))


MENDED = {
    FIX: ("ok", FIX),
    PLAIN: ("ok", PLAIN),
    FIX.rstrip("\n"): ("repaired: final-newline", FIX),
    f"```diff\n{FIX}```": ("repaired: fences", FIX),
    f"Here it is.\n\n{FIX}\nDone.\n": ("repaired: prose", FIX),
    f"First:\n```diff\n{FIX}```\nthen\n```diff\n{PLAIN.replace('a.py', 'b.py')}```\n": (
        "repaired: prose+fences",
        FIX + PLAIN.replace("a.py", "b.py"),
    ),
    FIX.replace("\n", "\r\n"): ("repaired: crlf", FIX),
    # Counts that are too high, too low, or cut off by a fence.
    f"{HEADER}@@ -1,4 +1,9 @@ def f\n-x\n+y\n": (
        "repaired: hunk-counts",
        FIX,
    ),
    f"{PLAIN}+z\n": (
        "repaired: hunk-counts",
        f"{HEADER.replace('975fbec', '2795c87')}@@ -1 +1,2 @@\n-x\n+y\n+z\n",
    ),
    f"```\n{HEADER}@@ -1,7 +1,7 @@\n-x\n+y\n```\n": (
        "repaired: fences+hunk-counts",
        FIX,
    ),
    # A deleted line that looks like a file's header, and one that follows.
    f"{HEADER}@@ -1 +0,0 @@\n--- b/c.py\n": (
        "ok",
        f"{HEADER}@@ -1 +0,0 @@\n--- b/c.py\n",
    ),
    f"{HEADER}@@ -1,9 +1,9 @@\n-x\n+y\n{PLAIN}": (
        "repaired: hunk-counts+repeats",
        FIX,
    ),
    # The signature of `git format-patch`.
    f"{FIX}-- \n2.39.5\n": ("repaired: prose", FIX),
    f"{FIX}\\ No newline at end of file\n": (
        "ok",
        f"{FIX}\\ No newline at end of file\n",
    ),
}


@pytest.mark.parametrize(("answer", "expected"), MENDED.items())
def test_the_patch_is_found_and_repaired(small, answer, expected) -> None:
    extracted = extract_patch(FORM, answer, small, finish="stop")
    assert (str(extracted.extraction), extracted.patch) == expected


WITHOUT_FILES = {
    f"{HEADER}@@ -1,4 +1,9 @@ def f\n-x\n+y\n": (
        "repaired: hunk-counts",
        f"{HEADER}@@ -1,1 +1,1 @@ def f\n-x\n+y\n",
    ),
    FIX.replace("\n", "\r\n"): ("repaired: crlf", FIX),
    f"{FIX}And again:\n{FIX}": ("repaired: prose+repeats", FIX),
    "--- a/dev/null\n+++ b/n.py\n@@ -0,0 +1 @@\n+y\n": (
        "repaired: dev-null",
        "--- /dev/null\n+++ b/n.py\n@@ -0,0 +1 @@\n+y\n",
    ),
}


@pytest.mark.parametrize(("answer", "expected"), WITHOUT_FILES.items())
def test_only_the_form_is_repaired_without_files(small, answer, expected) -> None:
    blind = dataclasses.replace(small, snapshot="")
    extracted = extract_patch(FORM, answer, blind, finish="stop")
    assert (str(extracted.extraction), extracted.patch) == expected


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("counts", ["@@ -1 +1 @@", "@@ -1,5 +1,5 @@"])
def test_a_crlf_answer_keeps_the_line_endings_of_the_file(
    workshop, end, counts
) -> None:
    old, new = {"a.py": b"x" + end}, {"a.py": b"y" + end}
    instance = workshop.instance(old, new)
    answer = FIX.replace("@@ -1 +1 @@", counts).replace("\n", "\r\n")
    extracted = extract_patch(FORM, answer, instance, finish="stop")
    assert workshop.applied(old, extracted.patch) == new


SHELF = {
    "src/a.py": b"def f(x):\n    y = x\n    return y\n\n\ndef g(x):\n    return x\n",
    "lib/b.py": b"one\ntwo\nthree\n",
    "t/b.py": b"one\ntwo\n",
    "u/b.py": b"one\ntwo\n",
    "a.mk": b"all:\n\tone\n\ttwo\n",
    "end": b"last",
}
HUNK = "@@ -2,2 +2,2 @@\n     y = x\n-    return y\n+    return x\n"


def of(path: str, hunk: str) -> str:
    return f"--- a/{path}\n+++ b/{path}\n{hunk}"


PLACED = {
    of("src/a.py", HUNK): "context",  # git requires the next line, or the file's end
    of("src/a.py", HUNK.replace("2,2", "1,2")): "line-numbers",
    of("src/a.py", HUNK.replace("2,2", "70,9")): "hunk-counts+line-numbers",
    of("src/a.py", HUNK.replace("@@ -2,2 +2,2 @@", "@@ def f(x):")): (
        "hunk-counts+line-numbers"
    ),
    of("a.py", HUNK): "paths",
    of("x/y/a.py", HUNK): "paths",
    of("src/a.py", HUNK).replace(" a/", " ").replace(" b/", " "): "prefixes",
    of("src/a.py", HUNK).replace("+++ b/", "+++ "): "prefixes",
    of("./src/a.py", HUNK): "prefixes",
    of("src/a.py", HUNK).replace("--- a/", "--- a/old/", 1): "prefixes",
    f"diff --git a/src/a.py b/src/a.py\n{HUNK}": "headers",
    of("a.mk", "@@ -1,3 +1,3 @@\n all:\n     one\n-    two\n+    three\n"): "tabs",
    of("end", "@@ -1 +1,2 @@\n+first\n last\n"): "end-of-file",
    of("n", "@@ -0,0 +1,7 @@\n+x\n"): "dev-null+hunk-counts",
    # The counts end before an empty line of context that lost its space.
    of(
        "src/a.py",
        "@@ -3,1 +3,1 @@\n-    return y\n+    return x\n\n\n-def g(x):\n+def g(y):\n",
    ): "hunk-counts",
    # A line of context after the last newline does not exist.
    of(
        "src/a.py", "@@ -2,3 +2,3 @@\n     y = x\n-    return y\n+    return x\n"
    ): "hunk-counts",
    of("src/a.py", HUNK).replace("--- a/src/a.py", "--- src/a.py.orig"): "prefixes",
    of("lib/b.py", "@@ -1,3 +0,0 @@\n-one\n-two\n-three\n").replace(
        "+++ b/lib/b.py", "+++ b/dev/null"
    ): "dev-null",
}


@pytest.mark.parametrize(("answer", "name"), PLACED.items())
def test_damage_with_one_possible_meaning_is_repaired(workshop, answer, name) -> None:
    new = SHELF | {"src/a.py": SHELF["src/a.py"].replace(b"return y", b"return x")}
    if "def g(y)" in answer:
        new["src/a.py"] = new["src/a.py"].replace(b"g(x)", b"g(y)")
    elif "a.mk" in answer:
        new = SHELF | {"a.mk": b"all:\n\tone\n\tthree\n"}
    elif "end" in answer:
        new = SHELF | {"end": b"first\nlast"}
    elif "lib/b" in answer:
        new = {path: SHELF[path] for path in SHELF if path != "lib/b.py"}
    elif "b/n" in answer:
        new = SHELF | {"n": b"x\n"}
    instance = workshop.instance(SHELF, new)
    extracted = extract_patch(FORM, answer, instance, finish="stop")
    assert str(extracted.extraction) == f"repaired: {name}"
    assert workshop.applied(SHELF, extracted.patch) == new


DOUBTFUL = {
    of("b.py", "@@ -1,9 +1,9 @@\n one\n-two\n+2\n"): "3 files fit b.py",
    of("src/a.py", "@@\n \n+x\n"): "a hunk fits several places in src/a.py",
    of("src/a.py", "@@\n return z\n+x\n"): "a hunk fits nowhere in src/a.py",
    of("none.py", "@@\n return z\n+x\n"): "no file fits the hunks of none.py",
    of("src/a.py", "@@ -3,9 +3 @@\n+x\n"): (
        "an insertion into src/a.py has no context"
    ),
    of("end", "@@ -1,3 +1 @@\n-last\n+y\n"): "whether end ends with a newline is ambiguous",
    of("lib/b.py", "@@ -1,2 +0,0 @@\n-one\n").replace("+++ b/lib/b.py", "+++ /dev/null"): (
        "the patch deletes lib/b.py, but not all of its lines"
    ),
    of("lib/b.py", "@@ -1,9 +1,9 @@\n-one\n+1\n") + of(
        "lib/b.py", "@@ -1,9 +1,9 @@\n-one\n+2\n"
    ): "two hunks change the same lines of lib/b.py",
    of("a.mk", "@@ -1,9 +1 @@\n     one\n-    two\n+    three\n").replace(
        "    one", "      one"
    ): "a hunk fits nowhere in a.mk",
    # A renamed file without the rename headers.
    of("lib/b.py", "@@ -1,2 +1,2 @@\n-one\n+1\n two\n").replace("+++ b/lib/b", "+++ b/lib/c"): (
        "whether a/lib/b.py moves is ambiguous"
    ),
    **dict.fromkeys(
        (
            of("lib/b.py", "@@ -1 +1 @@\n-one\n+1\n...\n-three\n+3\n"),
            of("lib/b.py", "-one\n+1\n") + of("src/a.py", HUNK),
            of("src/a.py", HUNK) + "```\nand\n```diff\n-last\n+first\n```\n",
            of("src/a.py", HUNK) + "similarity index 100%\nrename from end\nrename to beginning\n",
        ),
        "lines of the patch are outside its hunks",
    ),
    **dict.fromkeys(
        (
            of("end", "@@ -1 +1 @@\n-last\n+y\n+ It is new.\n"),
            of("src/a.py", "@@ -2,9 +2 @@\n-    y = x\n     return y\n\n+ It is shorter.\n"),
        ),
        "the patch ends with lines that could be a list",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "why"), DOUBTFUL.items())
def test_an_ambiguous_patch_is_refused(workshop, answer, why) -> None:
    instance = workshop.instance(SHELF, SHELF | {"x": b"y\n"})
    extracted = extract_patch(FORM, answer, instance, finish="stop")
    assert (extracted.patch, extracted.extraction.reason) == ("", why)
    assert extracted.extraction.failed


def test_a_new_file_keeps_a_folder_named_like_a_prefix(workshop) -> None:
    old = {"a/old.py": b"x\n"}
    instance = workshop.instance(old, old | {"a/new.py": b"y\n"})
    answer = instance.patch.replace("+1 @@", "+1,7 @@")
    extracted = extract_patch(FORM, answer, instance, finish="stop")
    assert (extracted.patch, extracted.extraction.repairs) == (
        instance.patch,
        ("hunk-counts",),
    )
    assert extracted.checks.applies
    bare = instance.patch.replace("a/a/", "a/").replace("b/a/", "a/")
    for text in (bare, bare.replace("--- /dev/null\n+++ a/new.py\n", "")):
        extracted = extract_patch(FORM, text, instance, finish="stop")
        assert str(
            extracted.extraction
        ) == "malformed: whether {}/new.py starts with a prefix is ambiguous".format(
            "a" if "+++" in text else "b"
        )


def test_hunks_that_only_add_lines_use_the_line_endings_of_the_file(workshop) -> None:
    lines = b"".join(b"%d\n" % n for n in range(30))
    new = {"a": lines.replace(b"3\n4\n", b"3\nx\n4\n").replace(b"27\n", b"")}
    instance = workshop.instance({"a": lines}, new)
    answer = instance.patch.replace("+x\n", "+x\r\n").replace("-27\n", "-27\r\n")
    extracted = extract_patch(FORM, answer, instance, finish="stop")
    assert (extracted.patch, extracted.extraction.repairs) == (
        instance.patch,
        ("crlf",),
    )
    assert extracted.checks.applies
    created = "--- /dev/null\n+++ b/n\n@@ -0,0 +1 @@\n+x\r\n"
    extracted = extract_patch(FORM, answer + created, instance, finish="stop")
    assert str(extracted.extraction) == "ok"  # kept as written, for the grader
    extracted = extract_patch(
        FORM, answer.replace("25,6", "25,7") + created, instance, finish="stop"
    )
    assert str(extracted.extraction) == "malformed: the line endings of n are ambiguous"


def test_lines_after_a_complete_patch_are_prose(small) -> None:
    for prose in ("- It was x.\n+ It is y.\n", "---\nDone.\n", "  indented\n"):
        extracted = extract_patch(FORM, f"{FIX}\n{prose}", small, finish="stop")
        assert (extracted.patch, str(extracted.extraction)) == (FIX, "repaired: prose")


def test_a_renamed_file_keeps_its_hunks(workshop) -> None:
    """git drops hunks after `rename to` without a `+++` line."""
    lines = b"".join(b"%d\n" % n for n in range(30))
    old, new = {"a.py": lines}, {"b.py": lines.replace(b"15\n", b"x\n")}
    instance = workshop.instance(old, new)
    answer = instance.patch.replace("--- a/a.py\n+++ b/b.py\n", "")
    extracted = extract_patch(FORM, answer, instance, finish="stop")
    assert (extracted.patch, extracted.extraction.repairs) == (
        instance.patch,
        ("headers",),
    )
    assert extracted.checks.applies


def test_a_well_formed_patch_that_does_not_apply_is_kept_for_the_grader(small) -> None:
    answer = PLAIN.replace("-x", "-z")
    assert extract_patch(FORM, answer, small) == ExtractedPatch(
        answer, Extraction(), StaticChecks(applies=False)
    )


@pytest.mark.parametrize(
    "answer",
    [
        f"<patch>\n{FIX}</patch>\n",
        f"Prose\n<answer>\n```diff\n{FIX}```\n</answer>\nProse",
        f"<answer>\n<diff>{FIX}</diff>\n</answer>",
        f"<patch>{FIX[:-1]}</patch>",
        f"<think>\n{PLAIN}</think>\n{FIX}",
        f"{PLAIN}\nNo.</think>\n<diff>\n{FIX}</diff>",
        f"Draft:\n{PLAIN.replace('+y', '+z')}\n<patch>\n{FIX}</patch>",
    ],
)
def test_thoughts_and_tags_are_removed(small, answer) -> None:
    extracted = extract_patch(FORM, answer, small)
    assert extracted.patch == FIX
    assert {"tags", "thoughts"} & {*extracted.extraction.repairs}


def test_tags_may_be_nested_deeply(small) -> None:
    answer = "<answer>\n<patch>\n" * 2000 + FIX
    assert str(extract_patch(FORM, answer, small).extraction) == "repaired: tags"


def test_a_tag_inside_the_patch_is_kept(workshop) -> None:
    old, new = {"a": b"<patch>\n</patch>\n"}, {"a": b"<patch>\nx</patch>\n</patch>\n"}
    instance = workshop.instance(old, new)
    assert str(extract_patch(FORM, instance.patch, instance).extraction) == "ok"


@pytest.mark.parametrize(
    ("answer", "finish"),
    [
        (FIX, "length"),  # more hunks may be missing
        (FIX[:-1], "length"),
        (FIX.replace("1 @@", "1,2 @@"), "length"),
        (FIX.replace("1 @@", "1,2 @@"), ""),
        (f"<patch>\n{FIX.replace('1 @@', '1,2 @@')}", ""),
        (f"{FIX}diff --gi", "length"),
        (f"{FIX}diff --git a/b.py b/b.py\nindex 12", ""),
        (f"{FIX}diff --git a/b b/b\nnew file mode 100644\n", "length"),
    ],
)
def test_an_incomplete_patch_is_not_repaired(small, answer, finish) -> None:
    extracted = extract_patch(FORM, answer, small, finish=finish)
    assert (
        str(extracted.extraction) == "malformed: the answer breaks off inside its patch"
    )


def test_a_disabled_repair_is_not_made(small) -> None:
    answer = f"```\n{FIX.replace('1 @@', '1,2 @@')}```\n"
    for off in ("fences", "hunk-counts"):
        extracted = extract_patch(FORM, answer, small, repairs=REPAIRS - {off})
        assert str(extracted.extraction) == (
            f"malformed: it needs the repair {off}, which is disabled"
        )
    assert extract_patch(FORM, FIX, small, repairs=()).patch == FIX


def test_a_misread_prefix_does_not_move_the_file(workshop) -> None:
    old, new = {"lib/a.py": b"x\n"}, {"lib/a.py": b"y\n", "lib/n": b"z\n"}
    instance = workshop.instance(old, new)
    answer = instance.patch.replace(" b/", " ").replace(" a/", " ")
    extracted = extract_patch(FORM, answer, instance)
    assert str(extracted.extraction) == "repaired: prefixes"
    assert workshop.applied(old, extracted.patch) == new


REFUSED = {
    "": "the answer has no patch",
    "No idea.\n- one\n+ two\n": "the answer has no patch",
    f"{HEADER}@@ -1,3 +1,3 @@\n-x\nunmarked\n+y\n": "a line of a hunk has no mark",
    f"{HEADER}@@ -1,3 +1,3 @@\n": "a hunk has no lines",
    HEADER: "the answer breaks off inside its patch",
    PLAIN.replace("a/a.py", "/dev/null").replace("b/a.py", "/dev/null"): (
        "the patch is not well-formed"
    ),
    f"{HEADER}GIT binary patch\nliteral 0\n": "the patch is binary",
    FIX.replace("b/a.py", "b/../a.py"): "unsafe path",
    PLAIN.replace("/a.py", "//etc/passwd"): "unsafe path",
    PLAIN.replace("a/a.py", "/etc/passwd"): "unsafe path",
    PLAIN.replace("/a.py", "/.git/hooks/pre-commit"): "unsafe path",
    FIX.replace("a/a.py b/a.py", '"a/\\056\\056/a.py" b/a.py', 1): "unsafe path",
    FIX.replace("y", "\0"): "the answer is not valid text",
}


@pytest.mark.parametrize(("answer", "why"), REFUSED.items())
def test_refusals_have_a_reason(small, answer, why) -> None:
    extracted = extract_patch(FORM, answer, small)
    assert (extracted.patch, extracted.extraction.reason) == ("", why)
    assert extracted.extraction.failed


def test_a_patch_through_a_symbolic_link_is_refused(workshop) -> None:
    instance = workshop.instance({"a.py": b"x\n"}, {"a.py": b"y\n"})
    (Path(instance.snapshot) / "link").symlink_to("/")
    answer = PLAIN.replace("/a.py", "/link/a.py")
    assert (
        str(extract_patch(FORM, answer, instance).extraction)
        == "malformed: unsafe path"
    )


def test_a_patch_is_found_without_a_snapshot(small) -> None:
    blind = dataclasses.replace(small, snapshot="")
    assert str(extract_patch(FORM, FIX, blind).extraction) == "ok"
    vague = extract_patch(FORM, f"{HEADER}@@ def f @@\n-x\n+y\n", blind)
    assert str(vague.extraction) == "malformed: a hunk has no line numbers"
