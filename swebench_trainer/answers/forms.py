"""The two forms of an answer, for training and for inference alike.

`render_answer` says what a model should have written for the gold patch;
`extract_patch` turns what a model did write into a patch. The `diff` form is a
unified diff as git writes it; the search-replace form is described in `blocks`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from swebench_trainer.answers.blocks import (
    Block,
    apply_blocks,
    blocks_of,
    ends_in_block,
    parse_blocks,
    write_block,
)
from swebench_trainer.answers.diffs import BREAKS_OFF, CUT, check_allowed, find_diff
from swebench_trainer.answers.envelope import without_thoughts
from swebench_trainer.answers.errors import NothingChangesError
from swebench_trainer.contracts import Tree
from swebench_trainer.patches.strict_diff import fitted, make_patch, read_patch
from swebench_trainer.recipe.models import REPAIRS, Repair
from swebench_trainer.types import (
    Extraction,
    ExtractionOutcome,
    Instance,
    is_unicode,
)

AnswerForm = Literal["search-replace", "diff"]


@dataclass(frozen=True)
class ExtractedPatch:
    """The patch of an answer.

    Attributes:
        patch: Unified diff, empty if there is none. Bytes of the files that
            are not UTF-8 are surrogate escapes.
        extraction: How it was taken from the answer.
    """

    patch: str
    extraction: Extraction

    @classmethod
    def none(cls, outcome: ExtractionOutcome, reason: str) -> ExtractedPatch:
        """A failed extraction."""
        return cls("", Extraction(outcome, reason=reason))


def render_answer(
    form: AnswerForm,
    instance: Instance,
    tree: Tree | None,
    *,
    context: int | None = None,
) -> str:
    """Writes the gold patch in the recipe's answer form.

    Search-replace blocks are checked against the repository's files and get as much
    context as makes each unique. Without files they are the patch's own hunks: right,
    but not known to be unique.

    Args:
        form: Form of the answer.
        instance: Whose gold patch it is.
        tree: The repository's files.
        context: Unchanged lines that a block keeps before and after its change though
            it is unique without them; `None` keeps those of the patch.

    Raises:
        ValueError: The form cannot express the patch; the message says why.
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
    """Turns an answer into a patch; what the answer is never makes it raise.

    Args:
        form: Form in which the model answers.
        text: The answer.
        tree: The repository's files; search-replace blocks need them.
        finish: How the answer ended, as `Sample.finish` has it.
        repairs: Those that may be made.
    """
    allowed = frozenset(repairs)
    if not is_unicode(text) or "\0" in text:
        return ExtractedPatch.none(ExtractionOutcome.MALFORMED, "not valid text")
    try:
        if form == "diff":
            patch, made = find_diff(text, tree, finish=finish, repairs=allowed)
        else:
            patch, made = _extract_blocks(text, tree, finish)
            check_allowed(made, allowed)
    except NothingChangesError as error:
        return ExtractedPatch.none(ExtractionOutcome.NO_CHANGE, str(error))
    except ValueError as error:
        return ExtractedPatch.none(ExtractionOutcome.MALFORMED, str(error))
    if not patch:
        return ExtractedPatch.none(ExtractionOutcome.NO_CHANGE, "no answer")
    names = tuple(dict.fromkeys(made))
    outcome = ExtractionOutcome.REPAIRED if names else ExtractionOutcome.OK
    return ExtractedPatch(patch, Extraction(outcome, names))


def _extract_blocks(text: str, tree: Tree | None, finish: str) -> tuple[str, list[str]]:
    blocks, repairs = _parse_without_thoughts(text)
    if not blocks:
        return "", []
    if finish == CUT and ends_in_block(text):
        raise ValueError(BREAKS_OFF)
    if tree is None:
        raise ValueError("no file contents")
    old, new, more = apply_blocks(blocks, tree)
    return make_patch(old, new), repairs + more


def _parse_without_thoughts(text: str) -> tuple[list[Block], list[str]]:
    answer = without_thoughts(text)
    if answer != text:
        try:
            blocks, repairs = parse_blocks(answer)
        except ValueError:
            pass  # what looks like the end of a thought is a line of a block
        else:
            return blocks, ["thoughts", *repairs]
    return parse_blocks(text)
