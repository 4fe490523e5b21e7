"""From an answer to a candidate: the one way for generation and evaluation."""

from __future__ import annotations

from swebench_trainer.contracts import Sample
from swebench_trainer.prompts.answers import AnswerForm, extract_patch
from swebench_trainer.types import Candidate, Instance


def to_candidate(
    form: AnswerForm, sample: Sample, instance: Instance, model: str
) -> Candidate:
    """Takes the patch from an answer; a recorded patch is taken as it is.

    Args:
        form: Form in which the model answers.
        sample: The answer.
        instance: The instance that it is about.
        model: Name of the writer, unless the sample knows better.
    """
    if sample.patch is not None:
        patch = sample.patch
        status = "ok" if patch.strip() else "failed:no patch was recorded"
    else:
        extraction = extract_patch(form, sample.text, instance)
        patch, status = extraction.patch, extraction.status
    return Candidate(
        instance_id=sample.instance_id,
        sample=sample.sample,
        model=sample.model or model,
        text=sample.text,
        patch=patch,
        extraction=status,
        prompt_tokens=sample.prompt_tokens,
        completion_tokens=sample.completion_tokens,
        finish=sample.finish,
    )
