"""Turns an answer into a candidate, for generation and evaluation alike."""

from __future__ import annotations

import dataclasses

from swebench_trainer.answers.checks import static_checks
from swebench_trainer.answers.diffs import ExtractedPatch
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

    A recorded patch is taken as recorded. Its text becomes the answer that a model
    would have written for it, so that preferences do not learn to tell forms apart.

    Args:
        prompt: Form in which the model answers, and the allowed repairs.
        sample: The answer.
        instance: Instance that the answer is about.
        tree: Files of the repository, if known.
        model: Name of the writer, unless the sample names one.
    """
    text = sample.text
    if sample.patch is not None:
        extracted = _recorded(sample.patch, tree)
        text = _in_form(prompt, sample.patch, instance, tree) or text
    else:
        extracted = extract_patch(
            prompt.answer,
            text,
            tree,
            finish=sample.finish,
            repairs=prompt.repairs,
        )
    return Candidate(
        instance_id=sample.instance_id,
        sample=sample.sample,
        model=sample.model or model,
        text=text,
        patch=extracted.patch,
        extraction=extracted.extraction,
        prompt_tokens=sample.prompt_tokens,
        completion_tokens=sample.completion_tokens,
        finish=sample.finish,
        checks=extracted.checks,
    )


def _recorded(patch: str, tree: Tree | None) -> ExtractedPatch:
    if not patch.strip():
        reason = "the recorded patch is empty"
        extraction = Extraction(ExtractionOutcome.NO_CHANGE, reason=reason)
        return ExtractedPatch(patch, extraction)
    checks = static_checks(patch, tree) if tree else StaticChecks()
    return ExtractedPatch(patch, Extraction(), checks)


def _in_form(
    prompt: PromptTable, patch: str, instance: Instance, tree: Tree | None
) -> str:
    """A patch as an answer; empty if the form cannot express it."""
    recorded = dataclasses.replace(instance, patch=patch)
    context = prompt.context_of(instance.instance_id)
    try:
        return render_answer(prompt.answer, recorded, tree, context=context)
    except ValueError:
        return ""
