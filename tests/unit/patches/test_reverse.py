"""Reversed patches restore the old tree, and no text breaks the readers."""

import subprocess

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from swebench_trainer.patches.lenient_diff import lines_by_file, scan
from swebench_trainer.patches.reverse import reverse

LINES = st.lists(
    st.sampled_from(["a", "b", "--- c", "+++ d", "", "@@ e", "\tf"]), max_size=9
)
TEXT = st.tuples(LINES, st.booleans()).map(
    lambda given: "\n".join(given[0]) + "\n" * given[1]
)
TREES = st.dictionaries(st.sampled_from(["x", "y", "d/z w"]), TEXT, max_size=3)


def git(folder, *arguments, data=None):
    done = subprocess.run(
        ["git", "-c", "core.autocrlf=false", *arguments],
        cwd=folder, input=data, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr.decode()
    return done.stdout.decode()


def write(folder, tree):
    for path, text in tree.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text.encode())


def tree(folder):
    files = (p for p in folder.rglob("*") if p.is_file() and ".git" not in p.parts)
    return {p.relative_to(folder).as_posix(): p.read_bytes().decode() for p in files}


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(TREES, TREES)
def test_the_reversed_patch_restores_the_old_tree(tmp_path_factory, old, new):
    folder = tmp_path_factory.mktemp("trees")
    for name, content in (("a", old), ("b", new)):
        (folder / name).mkdir()
        write(folder / name, content)
    patch = git(folder, "diff", "--no-index", "--find-renames", "a", "b")
    patch = patch.replace("a/a/", "a/").replace("b/b/", "b/").replace("a/b/", "a/")
    patch = patch.replace("b/a/", "b/").replace("rename from a/", "rename from ")
    patch = patch.replace("rename to b/", "rename to ")
    if not patch:
        return
    back = reverse(patch)
    git(folder, "init", "-q", "b")
    applied = subprocess.run(
        ["git", "apply", "--unidiff-zero", "-"], cwd=folder / "b", input=back.encode(),
        capture_output=True, check=False,
    )  # fmt: skip
    assert applied.returncode == 0, applied.stderr.decode() + back
    assert tree(folder / "b") == old
    assert reverse(back) == reverse(reverse(reverse(back)))


def test_modes_and_renames_are_reversed():
    patch = (
        "diff --git a/p q.c b/r.c\nold mode 100644\nnew mode 100755\n"
        "similarity index 90%\nrename from p q.c\nrename to r.c\nindex 12ab..34cd\n"
        "--- a/p q.c\n+++ b/r.c\n@@ -1,2 +1 @@ f()\n-a\n b\n"
    )
    assert reverse(patch) == (
        "diff --git a/r.c b/p q.c\nold mode 100755\nnew mode 100644\n"
        "similarity index 90%\nrename from r.c\nrename to p q.c\nindex 34cd..12ab\n"
        "--- a/r.c\n+++ b/p q.c\n@@ -1 +1,2 @@ f()\n+a\n b\n"
    )
    assert reverse(reverse(patch)) == patch


@pytest.mark.parametrize(
    "patch",
    [
        "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-a\n",
        "--- a/x\n+++ b/x\n@@ -1 +1 @@\nnonsense\n",
        "diff --git a/x b/x\nBinary files a/x and b/x differ\n",
        "diff --git a/x b/y\ncopy from x\ncopy to y\n",
        "diff --git a/x b/x\nindex 1..2\nGIT binary patch\nliteral 1\n",
        "diff --git a/x b/x\nold mode 100644\n",
        "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n+c\n",
        "this is not a patch\n",
    ],
)
def test_patches_that_cannot_be_reversed_are_refused(patch):
    with pytest.raises(ValueError, match="patch"):
        reverse(patch)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="+-@ \n/\\abdev,.0123", max_size=200))
def test_no_text_makes_the_readers_fail_otherwise(text):
    for patch in (text, "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n" + text):
        scan(patch.split("\n"))
        list(lines_by_file(patch))
        try:
            reverse(patch)
        except ValueError as error:
            assert str(error)
