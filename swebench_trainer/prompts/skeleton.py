"""The lines of a file that say what is in it: classes and functions, without bodies."""

from __future__ import annotations

import ast
import warnings

from swebench_trainer.prompts.views import merge


def skeleton(path: str, lines: tuple[str, ...]) -> tuple[range, ...]:
    """The signatures of a Python file; nothing for other files, or if it cannot be read."""
    if not path.endswith((".py", ".pyi")):
        return ()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the code of others
            tree = ast.parse("\n".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    found = [
        range(node.lineno - 1, max(node.lineno, node.body[0].lineno - 1))
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    # What a form feed does to Python's count of lines, it does not to ours.
    if any(region.stop > len(lines) for region in found):
        return ()
    return merge(found, len(lines))
