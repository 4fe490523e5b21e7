"""Instances, trees and token counts for tests of prompts that show files."""

from __future__ import annotations

from collections.abc import Mapping

from damage import Memory

from swebench_trainer.contents.paths import check_path
from swebench_trainer.contracts import Prompt, PromptInputs, PromptStyle
from swebench_trainer.patches.files import File, Text
from swebench_trainer.patches.strict_diff import make_patch
from swebench_trainer.types import Instance


def an_instance(
    old: Mapping[str, str], new: Mapping[str, str], **fields: str
) -> Instance:
    """An instance whose gold patch changes the files `old` to `new`."""
    sides = [{p: File(Text.of(t)) for p, t in side.items()} for side in (old, new)]
    values = {
        "instance_id": "demo__demo-1",
        "repo": "demo/demo",
        "base_commit": "0" * 40,
        "problem_statement": "It breaks.",
        "patch": make_patch(*sides),
    }
    return Instance(**(values | fields))


def estimate(text: str) -> int:
    """Number of tokens: a third of the bytes."""
    return -(-len(text.encode()) // 3)


class Shelf(Memory):
    """A tree in memory that rejects unsafe paths."""

    def mode(self, path: str) -> str:
        check_path(path)
        return super().mode(path)


def render(
    style: PromptStyle, instance: Instance, files: Mapping[str, str], seed: int = 0
) -> Prompt:
    tree = Shelf({path: text.encode() for path, text in files.items()})
    return style.render(instance, PromptInputs(lambda: tree, estimate, seed))


def module(functions: int, word: str = "value") -> str:
    """A Python file with five lines per function, all functions different."""
    return "".join(
        f"def {word}_{n}(x):\n    y = x + {n}\n    z = y * {n}\n    return z - {n}\n\n"
        for n in range(functions)
    )
