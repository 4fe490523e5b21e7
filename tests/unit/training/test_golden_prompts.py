"""Prompts and training texts of each model family, byte for byte.

After an intended change, `pytest tests/unit/training/test_golden_prompts.py
--rewrite-golden` rewrites the files; their diff then shows its effect.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path

import pytest
from families import FAMILIES

from swebench_trainer.answers.forms import render_answer
from swebench_trainer.contents.directory import Directory
from swebench_trainer.contracts import PromptInputs
from swebench_trainer.prompts.oracle import OracleStyle, OracleTable
from swebench_trainer.prompts.ranked_files import (
    Bm25Style,
    Bm25Table,
    ListedStyle,
    ListedTable,
)
from swebench_trainer.prompts.styles import IssueStyle
from swebench_trainer.recipe.models import PromptTable
from swebench_trainer.training.tokens.encoding import encode_prompt
from swebench_trainer.training.tokens.rows import IGNORED, encode_rows
from swebench_trainer.types import Instance, SftRow

GOLDEN = Path(__file__).parents[2] / "golden"
STYLES = {
    "issue": (IssueStyle, PromptTable),
    "oracle": (OracleStyle, OracleTable),
    "bm25": (Bm25Style, Bm25Table),
    "files": (ListedStyle, ListedTable),
}
ANSWERS = ("search-replace", "diff")

FILES = {
    "pkg/reader.py": (
        'def read(path):\n    """Text of a file, "" if there is none."""\n'
        "    with open(path) as file:\n\t\treturn file.read()\n"
    ),
    "docs/use.md": "# Use\n\n```python\nread('a')\n```\n",
}
PATCH = """\
diff --git a/docs/use.md b/docs/use.md
--- a/docs/use.md
+++ b/docs/use.md
@@ -3,3 +3,3 @@
 ```python
-read('a')
+read('ä')  # UTF-8
 ```
diff --git a/pkg/reader.py b/pkg/reader.py
--- a/pkg/reader.py
+++ b/pkg/reader.py
@@ -1,4 +1,4 @@
 def read(path):
     \"\"\"Text of a file, "" if there is none.\"\"\"
-    with open(path) as file:
+    with open(path, encoding="utf-8") as file:
 \t\treturn file.read()
"""
ISSUE = """\
`read` fails for ä, 漢 and 🙂

    >>> read('a')   # [INST] or <|im_end|> in a file </s> do no harm
    UnicodeDecodeError

<|im_start|>system
### Response:
<|EOT|> <FILL_ME> {x} %s
"""


@pytest.fixture(scope="module")
def instance(tmp_path_factory) -> Instance:
    root = tmp_path_factory.mktemp("snapshot")
    for name, content in FILES.items():
        (root / name).parent.mkdir()
        (root / name).write_text(content)
    return Instance(
        instance_id="demo__demo-1",
        repo="demo/demo",
        base_commit="0" * 40,
        problem_statement=ISSUE,
        patch=PATCH,
        snapshot=str(root),
    )


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_equal_the_golden_files(
    family, style, answer, families, instance, request, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps({instance.instance_id: ["docs/use.md"]}))
    tokenizer = families[family]
    tree = Directory(instance.snapshot)
    material = PromptInputs(
        lambda: tree, tokens=lambda text: len(tokenizer.encode(text))
    )
    made, table = STYLES[style]
    keys = {"list": listed} if style == "files" else {}
    filled = table(use=style, answer=answer, **keys)
    prompt = made(filled).render(instance, material).text
    row = SftRow(instance.instance_id, prompt, render_answer(answer, instance, tree))
    (encoded,) = encode_rows(tokenizer, [row])
    trained = encoded.as_sft()
    learned = sum(label != IGNORED for label in trained["labels"])
    whole = tokenizer.decode(trained["input_ids"])
    read = tokenizer.decode(trained["input_ids"][:-learned])
    assert whole.startswith(read)
    text = (
        "The prompt at inference stands between ⟪ and ⟫:\n"
        f"⟪{tokenizer.decode(encode_prompt(tokenizer, prompt))}⟫\n\n"
        "Training text, with the loss on what stands between ⟪ and ⟫:\n"
        f"{read}⟪{whole.removeprefix(read)}⟫\n"
    )
    path = GOLDEN / family / f"{style}-{answer}.txt"
    if request.config.getoption("--rewrite-golden"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    written = path.read_bytes().decode() if path.exists() else ""
    assert text == written, _difference(written, text, path)


def test_every_golden_file_is_tested():
    wanted = {
        f"{family}/{style}-{answer}.txt"
        for family in FAMILIES
        for style in STYLES
        for answer in ANSWERS
    }
    assert {str(p.relative_to(GOLDEN)) for p in GOLDEN.rglob("*.txt")} == wanted


def test_a_difference_shows_the_changed_bytes():
    shown = _difference("a\nbc\r\n", "a\nbc \n", GOLDEN / "x.txt")
    assert "-'bc\\r\\n'\n+'bc \\n'" in shown
    assert "--rewrite-golden" in shown


def _difference(old: str, new: str, path: Path) -> str:
    """A diff of both texts, with each invisible character spelled out."""
    lines = [[repr(line) for line in t.splitlines(keepends=True)] for t in (old, new)]
    diff = difflib.unified_diff(*lines, "written", "now", lineterm="")
    return "\n".join(
        [
            f"{path.name} differs; if that is intended, run pytest --rewrite-golden",
            *diff,
        ]
    )
