"""Prompts, byte for byte."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from shorthand import render

from swebench_trainer.prompts.oracle import OracleStyle, OracleTable
from swebench_trainer.prompts.styles import IssueStyle
from swebench_trainer.recipe.models import PromptTable

GOLDEN = Path(__file__).parent / "golden"

OLD = {
    "src/a.py": b"def f():\n    return '{x}'",
    "docs/b.md": b"# Use\n\n```python\nf()\n```\n",
    "gone.py": b"1\n",
    "untouched.py": b"2\n",
}
NEW = {
    "src/a.py": b"def f():\n    return 'x'",
    "docs/b.md": b"# Use\n\n```python\nf(1)\n```\n",
    "new.py": b"3\n",
    "untouched.py": b"2\n",
}


@pytest.fixture
def instance(workshop):
    return workshop.instance(OLD, NEW, problem_statement="It {breaks}.\n\n    %s\n")


def golden(name: str, text: str) -> None:
    assert text.encode() == (GOLDEN / name).read_bytes()


def test_the_issue_prompt_matches_the_golden_file(instance) -> None:
    golden("issue.txt", render(IssueStyle(PromptTable()), instance))


def test_the_swebench_pro_prompt_matches_the_golden_file(instance) -> None:
    pro = dataclasses.replace(
        instance, requirements="- f returns x", interface="f() -> str"
    )
    golden("issue-pro.txt", render(IssueStyle(PromptTable()), pro))


@pytest.mark.parametrize("answer", ["diff", "search-replace"])
def test_the_oracle_prompt_matches_the_golden_file(instance, answer) -> None:
    style = OracleStyle(OracleTable(use="oracle", answer=answer))
    golden(f"oracle-{answer}.txt", render(style, instance))


def test_the_order_of_files_depends_on_the_instance(workshop) -> None:
    names = [f"{letter}.py" for letter in "abcdefgh"]
    instance = workshop.instance(
        {name: b"1\n" for name in names}, {name: b"2\n" for name in names}
    )
    style = OracleStyle(OracleTable(use="oracle"))

    def order(instance_id: str) -> list[str]:
        text = render(style, dataclasses.replace(instance, instance_id=instance_id))
        return [line for line in text.split("\n") if line in names]

    assert order("one") == order("one")
    assert sorted(order("one")) == names
    assert len({tuple(order(str(i))) for i in range(5)}) > 1


def test_the_oracle_style_raises_with_the_missing_file(instance) -> None:
    style = OracleStyle(OracleTable(use="oracle"))
    with pytest.raises(ValueError, match="no files"):
        render(style, dataclasses.replace(instance, snapshot=""))
    (Path(instance.snapshot) / "gone.py").unlink()
    with pytest.raises(ValueError, match=r"the repository has no file gone\.py"):
        render(style, instance)
    (Path(instance.snapshot) / "gone.py").write_bytes(b"\xff\n")
    with pytest.raises(ValueError, match=r"gone\.py is not UTF-8 text"):
        render(style, instance)


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "link"])
def test_the_oracle_style_reads_nothing_outside_the_snapshot(instance, path) -> None:
    root = Path(instance.snapshot)
    (root.parent / "secret").write_text("secret\n")
    (root / "link").symlink_to(root.parent / "secret")
    patch = f"--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-secret\n+x\n"
    style = OracleStyle(OracleTable(use="oracle"))
    with pytest.raises(ValueError, match="unsafe path"):
        render(style, dataclasses.replace(instance, patch=patch))
