"""What is said of a patch without running it."""

from __future__ import annotations

import pytest
from damage import Memory, between
from shorthand import tree_of

from swebench_trainer.answers.candidates import to_candidate
from swebench_trainer.answers.checks import look, parses, tally
from swebench_trainer.answers.lint import new_errors
from swebench_trainer.contracts import Sample
from swebench_trainer.recipe.models import PromptTable
from swebench_trainer.types import Candidate, as_row, from_row

BASE = {"a.py": b"x = 1\n", "two.py": b"print 1\n", "b.txt": b"(\n"}


def seen(new: dict[str, bytes]) -> tuple[str, ...]:
    return look(between(BASE, new).patch, Memory(BASE))


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({"a.py": b"x = 2\n"}, []),
        ({"a.py": b"x = (\n"}, ["a.py"]),
        ({"a.py": b"x = '\\d'\n"}, []),  # warned of, but read
        ({"n.py": b"if\n"}, ["n.py"]),
        ({"a.py": b"if\n", "n.py": b"if\n"}, ["a.py", "n.py"]),
        ({"two.py": b"print 2\n"}, []),  # could not be read before
        ({"b.txt": b"((\n"}, []),
    ],
)
def test_a_file_that_the_patch_breaks_is_named(change, broken) -> None:
    expected = ("applies", *(f"does not parse: {path}" for path in broken))
    assert seen(BASE | change) == expected


@pytest.mark.parametrize(
    ("content", "errors"),
    [
        (b"y = x\n", ["undefined name 'x'"]),
        (b"import os\n", []),  # unused, which breaks nothing
        (b"x = 1\ndef f():\n    print(x)\n    x = 2\n", ["undefined local 'x'"]),
        (b"def f(a, a): pass\n", ["duplicate argument 'a'"]),
        (b"__all__ = ['f']\n", ["undefined export 'f'"]),
        (b"return 1\n", ["return outside function"]),
        (b"from os import *\ny = path2\n", []),  # nobody knows
        (b"y = old + other\n", ["undefined name 'other'"]),  # `old` was there before
        (b"x = 1\n\n\n\ny = old\n", []),
    ],
)
def test_new_errors_are_told_and_old_ones_are_not(content, errors) -> None:
    base = {"a.py": b"y = old\n"}
    checks = look(between(base, {"a.py": content}).patch, Memory(base))
    assert checks == ("applies", *(f"{error}: a.py" for error in errors))


def test_of_hundreds_of_errors_some_are_told() -> None:
    lines = b"".join(b"x = name%d\n" % n for n in range(500))
    assert len(seen(BASE | {"a.py": lines})) == 1 + 10


def test_a_new_file_has_only_new_errors() -> None:
    assert seen(BASE | {"n.py": b"x\n"}) == ("applies", "undefined name 'x': n.py")


def test_errors_move_with_a_renamed_file() -> None:
    base = {"a.py": b"y = old\n" + b"z = 1\n" * 20}
    moved = {"b.py": base["a.py"] + b"w = new\n"}
    patch = between(base, moved).patch
    assert "rename to" in patch
    assert look(patch, Memory(base)) == ("applies", "undefined name 'new': b.py")


def test_a_deleted_file_needs_no_parsing() -> None:
    assert seen({path: BASE[path] for path in BASE if path != "a.py"}) == ("applies",)


def test_a_patch_that_does_not_apply_is_said_to() -> None:
    patch = between(BASE, BASE | {"a.py": b"y\n"}).patch
    assert look(patch, Memory({"a.py": b"other\n"})) == ("does not apply",)


@pytest.mark.parametrize(
    "patch",
    [
        "--- a/../x\n+++ b/../x\n@@ -1 +1 @@\n-x\n+y\n",
        "diff --git a/x b/x\nGIT binary patch\n",
        "diff --git a/x b/x\nnew file mode 100644\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+\ud800\n",
    ],
)
def test_nothing_is_said_of_what_is_not_looked_at(patch) -> None:
    assert look(patch, Memory(BASE)) == ()


def test_no_source_makes_the_parser_raise() -> None:
    assert parses("a.py", b"\0") is False
    assert parses("a.py", b"\xff\xfe") is False
    assert parses("a.py", b"(" * 5000) in (False, None)
    assert parses("a.py", b"-" * 100_000 + b"1") in (False, None)
    assert parses("a.unknown", b"(") is None
    deep = b"x = " + b"(" * 150 + b"y" + b")" * 150 + b"\n"
    assert new_errors(b"", deep) == ["undefined name 'y'"]
    assert new_errors(b"", b"-" * 100_000 + b"y") in ([], ["undefined name 'y'"])


@pytest.mark.parametrize(
    ("package", "path", "good", "bad"),
    [
        ("go", "a.go", b"package a\n", b"package {\n"),
        ("javascript", "a.js", b"f(1);\n", b"f(1;\n"),
        ("typescript", "a.tsx", b"const x: number = 1;\n", b"const x: = ;\n"),
        ("typescript", "a.ts", b"let x: number = 1;\n", b"let x: = ;\n"),
        ("c", "a.c", b"int x;\n", b"int x(;\n"),
        ("cpp", "a.cpp", b"class A {};\n", b"class A {\n"),
        ("java", "A.java", b"class A {}\n", b"class A {\n"),
        ("php", "a.php", b"<?php f(1);\n", b"<?php f(1;\n"),
        ("ruby", "a.rb", b"f(1)\n", b"f(1\n"),
        ("rust", "a.rs", b"fn f() {}\n", b"fn f() {\n"),
    ],
)
def test_other_languages_need_their_grammar(package, path, good, bad) -> None:
    pytest.importorskip(f"tree_sitter_{package}", reason="an optional package")
    assert parses(path, good) is True
    assert parses(path, bad) is False


def test_a_candidate_says_what_was_seen(workshop) -> None:
    instance = workshop.instance({"a.py": b"x = 1\n"}, {"a.py": b"x = (\n"})
    sample = Sample(instance.instance_id, 0, instance.patch)
    candidate = to_candidate(
        PromptTable(answer="diff"), sample, instance, tree_of(instance), "m"
    )
    assert candidate.checks == ("applies", "does not parse: a.py")
    assert from_row(Candidate, as_row(candidate)) == candidate


def test_faults_are_counted_by_candidate() -> None:
    def candidate(*checks: str) -> Candidate:
        return Candidate("i", 0, "m", "", "", checks=checks)

    bad = "does not parse"
    candidates = [
        candidate(),
        candidate("applies"),
        candidate("does not apply"),
        candidate("applies", f"{bad}: a.py", f"{bad}: b.py"),
        candidate("applies", f"{bad}: a.py", "undefined name 'x': b.py"),
    ]
    assert tally(candidates) == {
        "looked at": 4,
        "does not apply": 1,
        "does not parse": 2,
        "new errors": 1,
    }
    assert tally([]) == {}
