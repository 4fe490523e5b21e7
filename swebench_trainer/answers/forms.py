"""The forms of an answer, for training and inference alike.

`render_answer` writes the answer that a model should give for the gold patch;
`extract_patch` turns an answer into a patch. The `diff` form is a unified diff as git
writes it; `blocks` describes the search-replace form.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from swebench_trainer.answers.blocks import (
    apply_blocks,
    blocks_of,
    layout_of_blocks,
    may_continue,
    parse_blocks,
    separate_glued,
    write_block,
)
from swebench_trainer.answers.diffs import (
    CUT_OFF,
    ExtractedPatch,
    check_allowed,
    find_diff,
)
from swebench_trainer.answers.envelope import (
    inside_answer_tags,
    refuse_unknown_markup,
)
from swebench_trainer.answers.errors import NothingChangesError
from swebench_trainer.answers.thoughts import without_thoughts
from swebench_trainer.contracts import Tree
from swebench_trainer.patches.strict_diff import fitted, read_patch
from swebench_trainer.recipe.models import REPAIRS, Repair
from swebench_trainer.types import (
    ExtractionOutcome,
    Instance,
    is_unicode,
)

AnswerForm = Literal["search-replace", "diff"]


def render_answer(
    form: AnswerForm,
    instance: Instance,
    tree: Tree | None,
    *,
    context: int | None = None,
) -> str:
    """Writes the gold patch in the recipe's answer form.

    Search-replace blocks are checked against the repository's files and get enough
    context to make each one unique. Without files they are the hunks of the patch:
    correct, but not known to be unique.

    Args:
        form: Form of the answer.
        instance: Instance of the gold patch.
        tree: Files of the repository.
        context: Unchanged lines that a block keeps before and after its change even
            if it is unique without them; `None` keeps those of the patch.

    Raises:
        ValueError: The form cannot express the patch; the message gives the reason.
    """
    if not instance.patch.strip():
        raise ValueError("the gold patch is empty")
    if form == "diff":
        answer = instance.patch
    else:
        answer = _render_blocks(instance, tree, context)
    if not is_unicode(answer):
        raise ValueError("the gold patch is not valid UTF-8 text")
    return answer


def _render_blocks(instance: Instance, tree: Tree | None, context: int | None) -> str:
    if tree:
        changes, old = fitted(instance.patch, tree)
    else:
        changes, old = read_patch(instance.patch), {}
    blocks = (b for c in changes for b in blocks_of(c, old.get(c.old or ""), context))
    return "\n".join(write_block(block) for block in blocks)


def extract_patch(
    form: AnswerForm,
    text: str,
    tree: Tree | None,
    *,
    finish: str = "",
    repairs: Iterable[Repair] = REPAIRS,
) -> ExtractedPatch:
    """Turns an answer into a patch; never raises because of the answer's text.

    Args:
        form: Form in which the model answers.
        text: Text of the answer.
        tree: Files of the repository; search-replace blocks need them.
        finish: How the answer ended, see `Sample.finish`.
        repairs: Allowed repairs.
    """
    allowed = frozenset(repairs)
    if not is_unicode(text) or "\0" in text:
        return ExtractedPatch.none(
            ExtractionOutcome.MALFORMED, "the answer is not valid text"
        )
    try:
        if form == "diff":
            return find_diff(text, tree, finish=finish, repairs=allowed)
        return _find_blocks(text, tree, finish, allowed)
    except NothingChangesError as error:
        return ExtractedPatch.none(ExtractionOutcome.NO_CHANGE, str(error))
    except ValueError as error:
        return ExtractedPatch.none(ExtractionOutcome.MALFORMED, str(error))


def _find_blocks(
    text: str, tree: Tree | None, finish: str, allowed: frozenset[Repair]
) -> ExtractedPatch:
    whole = separate_glued(text)
    answer = without_thoughts(whole, layout_of_blocks)
    repairs = ["thoughts"] if answer != whole else []
    inner = inside_answer_tags(layout_of_blocks(answer))
    if inner != answer:
        repairs.append("tags")
    blocks, needed = parse_blocks(inner)
    if not blocks:
        raise NothingChangesError("the answer has no patch")
    layout = layout_of_blocks(inner)
    refuse_unknown_markup(layout)
    if may_continue(layout, finish, tree):
        raise ValueError(CUT_OFF)
    if tree is None:
        raise ValueError("the repository's files are not known")
    files = apply_blocks(blocks, tree)
    repairs += [*needed, *files.repairs]
    check_allowed(repairs, allowed)
    return ExtractedPatch.between(files, repairs)
