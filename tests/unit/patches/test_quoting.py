"""git's quoting of file names, undone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from swebench_trainer.patches.quoting import unquote

NAMES = st.text(
    st.one_of(st.sampled_from('"\\\t\n\r\a a1\udcff'), st.characters(codec="utf-8")),
    min_size=1,
    max_size=20,
).filter(lambda name: not {"/", "\0"} & {*name} and name not in (".", ".."))


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a/x.py", "a/x.py"),
        ('"a/\\303\\244.py"', "a/ä.py"),
        ('diff --git "a/\\t" "b/\\""', 'diff --git a/\t b/"'),
        ('"ends with a backslash\\\\"', "ends with a backslash\\"),
        ('"\\377"', "\udcff"),
        ('"\udcff"', "\udcff"),
        ('"\ud800"', "\ud800"),  # does not stand for a byte
        ('"a/x', "a/x"),  # the closing quote is missing
        ('"\\8"', "8"),  # not an octal number
        ('"\\', "\\"),
    ],
)
def test_quotes_are_removed_anywhere_in_a_line(text: str, plain: str) -> None:
    assert unquote(text) == plain


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(NAMES, st.sampled_from(["true", "false"]))
def test_names_quoted_by_git_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, name: str, quote: str
) -> None:
    folder: Path = tmp_path_factory.mktemp("names")
    encoded = os.fsencode(name) if name.isascii() else name.encode(errors="surrogateescape")  # fmt: skip
    if len(encoded) > 200:
        return
    Path(os.fsdecode(os.fsencode(folder) + b"/" + encoded)).write_text("x")
    git = ["git", "-C", str(folder), "-c", f"core.quotePath={quote}"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    listed = subprocess.run(
        [*git, "ls-files", "--others"], check=True, capture_output=True
    ).stdout
    assert unquote(listed.decode("utf-8", "surrogateescape").removesuffix("\n")) == name
