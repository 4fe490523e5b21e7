"""From an answer to a candidate: the one way for generation and evaluation."""

from __future__ import annotations

import dataclasses

from swebench_trainer.answers.checks import static_checks
from swebench_trainer.answers.forms import extract_patch, render_answer
from swebench_trainer.contracts import Sample, Tree
from swebench_trainer.recipe.models import PromptTable
from swebench_trainer.types import (
    Candidate,
    Extraction,
    ExtractionOutcome,
    Instance,
    StaticChecks,
)


def to_candidate(
    prompt: PromptTable,
    sample: Sample,
    instance: Instance,
    tree: Tree | None,
    model: str,
) -> Candidate:
    """Takes the patch from an answer.

    A recorded patch is taken as it is; its text is what a model would have
    written for it, so that preferences do not teach to tell two forms apart.

    Args:
        prompt: The form in which the model answers, and which repairs may be made.
        sample: The answer.
        instance: The instance that it is about.
        tree: The repository's files, where they are known.
        model: Name of the writer, unless the sample knows better.
    """
    text = sample.text
    if sample.patch is not None:
        patch = sample.patch
        extraction = Extraction()
        if not patch.strip():
            extraction = Extraction(
                ExtractionOutcome.NO_CHANGE, reason="no patch was recorded"
            )
        text = _in_form(prompt, patch, instance, tree) or text
    else:
        extracted = extract_patch(
            prompt.answer,
            text,
            tree,
            finish=sample.finish,
            repairs=prompt.repairs,
        )
        patch, extraction = extracted.patch, extracted.extraction
    return Candidate(
        instance_id=sample.instance_id,
        sample=sample.sample,
        model=sample.model or model,
        text=text,
        patch=patch,
        extraction=extraction,
        prompt_tokens=sample.prompt_tokens,
        completion_tokens=sample.completion_tokens,
        finish=sample.finish,
        checks=static_checks(patch, tree) if tree and patch.strip() else StaticChecks(),
    )


def _in_form(
    prompt: PromptTable, patch: str, instance: Instance, tree: Tree | None
) -> str:
    """A patch as an answer; empty when the form cannot express it."""
    recorded = dataclasses.replace(instance, patch=patch)
    context = prompt.context_of(instance.instance_id)
    try:
        return render_answer(prompt.answer, recorded, tree, context=context)
    except ValueError:
        return ""
