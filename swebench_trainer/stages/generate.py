"""generate: k candidates for each admitted instance of the training split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from swebench_trainer.answers.checks import check_counts
from swebench_trainer.contracts import Backend, SampleRequest
from swebench_trainer.errors import StageError
from swebench_trainer.recipe.models import GenerateTable, ModelTable
from swebench_trainer.sampling.collect import NamedSampler, SamplerSequence
from swebench_trainer.stages.context import (
    StageContext,
    StageSummary,
    costs,
    keep_responses,
)
from swebench_trainer.store.draw import draw_seed
from swebench_trainer.store.jsonl import write_rows
from swebench_trainer.store.predictions import prediction_row
from swebench_trainer.types import Instance


def run(context: StageContext) -> StageSummary:
    """Write `candidates.jsonl`, and `predictions.<n>.jsonl` per sample number.

    Raises:
        StageError: The training split has no admitted instance, or no writer
            returned an answer.
    """
    recipe = context.recipe
    settings = context.table(GenerateTable)
    instances = [i for i in context.admitted() if i.split == "train"]
    if not instances:
        raise StageError("No instance of the training split can be graded.")
    tables = settings.writers or (context.table(ModelTable),)
    weights = None if settings.model else context.weights("sft")
    registry = context.plugins.registry
    backends = [registry.create(table) for table in tables]
    # Sample numbers continue from writer to writer, so that each is unique.
    samples = range(settings.samples * len(backends))

    writers = _writers(context, backends, weights, settings)
    requests = _requests(instances, context.prompts(), settings, samples, recipe.seed)

    open_samplers = partial(SamplerSequence, writers, settings.samples)
    candidates = context.answers(open_samplers, requests, instances)
    if not candidates:
        names = ", ".join(backend.name for backend in backends)
        raise StageError(
            f"{names} returned no answer for any training instance.",
            hint="Run the same command again to retry, or use another writer in "
            "[generate] model.",
        )
    for number in samples:
        rows = [prediction_row(c) for c in candidates if c.sample == number]
        write_rows(context.dir.file(f"predictions.{number}.jsonl"), rows)
    patches = {(c.instance_id, c.patch) for c in candidates if c.patch}
    figures: StageSummary = {
        "candidates": len(candidates),
        "distinct patches": len(patches),
    }
    checks = check_counts(candidates)
    if checks.checked:
        figures["patches that do not apply"] = checks.refused
    if missing := len(instances) * len(samples) - len(candidates):
        figures["without an answer"] = missing
    return figures | costs(backends) | figures  # plugins must not overwrite figures


def _writers(
    context: StageContext,
    backends: Sequence[Backend],
    weights: Path | None,
    settings: GenerateTable,
) -> list[NamedSampler]:
    writers = []
    for number, backend in enumerate(backends):
        folder = context.dir.file("writers", str(number))
        keep_responses(backend, context.dir.path if len(backends) == 1 else folder)
        opened = partial(backend.open_sampler, weights, batch_size=settings.batch_size)
        writers.append(NamedSampler(backend.name, opened))
    return writers


def _requests(
    instances: list[Instance],
    prompts: dict[str, str],
    settings: GenerateTable,
    samples: Iterable[int],
    seed: int,
) -> list[SampleRequest]:
    return [
        SampleRequest(
            instance_id=instance.instance_id,
            sample=number,
            prompt=prompts[instance.instance_id],
            max_new_tokens=settings.max_new_tokens,
            temperature=0.0
            if settings.greedy and not number % settings.samples
            else settings.temperature,
            top_p=settings.top_p,
            seed=draw_seed(seed, instance.instance_id, number),
            top_k=settings.top_k,
            min_p=settings.min_p,
        )
        for instance in instances
        for number in samples
    ]
