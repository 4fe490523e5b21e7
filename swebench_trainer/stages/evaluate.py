"""evaluate: base, SFT and DPO model on the same prompts, graded the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, islice
from pathlib import Path

from swebench_trainer.answers.checks import CheckCounts, check_counts
from swebench_trainer.contracts import Backend, Grader, SampleRequest
from swebench_trainer.errors import StageError
from swebench_trainer.grading.official import final_report, trusted_part
from swebench_trainer.grading.retest import of_first_run
from swebench_trainer.recipe.models import EvaluateTable, GradeTable
from swebench_trainer.reporting.metrics import Rate, paired
from swebench_trainer.reporting.run_report import context_label
from swebench_trainer.reporting.summaries import (
    Comparison,
    CurvePoint,
    EvaluationSummary,
    ModelResult,
    SplitResult,
    verdict_counts,
)
from swebench_trainer.stages.context import (
    StageContext,
    StageSummary,
    costs,
    keep_responses,
)
from swebench_trainer.store.draw import draw_seed
from swebench_trainer.store.jsonl import read_rows, write_json, write_rows
from swebench_trainer.store.predictions import prediction_row
from swebench_trainer.types import Candidate, Instance, Status, Verdict, as_row


def run(context: StageContext) -> StageSummary:
    """Write `<model>/predictions.jsonl`, `<model>/report.json` and `summary.json`.

    Milestones of trainings are also graded; they appear only in the summary's `curve`.

    Raises:
        PrerequisiteError: The grader does not work on this machine.
        StageError: A split has no admitted instance, or infrastructure errors remain.
    """
    recipe = context.recipe
    splits = context.table(EvaluateTable).splits
    trust = context.table(GradeTable).counter_runs
    instances = _instances(context, splits)
    shown = context.prompt_context(instances)
    backend = context.backend()
    verdicts: dict[str, list[Verdict]] = {}
    checks: dict[str, CheckCounts] = {}
    models = _models(context)
    milestones = _milestones(context, models)
    every = {m.model: m.weights for m in milestones} | models
    answers: dict[str, list[Candidate]] = {}
    with context.grader(instances) as grader:
        for name, weights in every.items():
            answers[name] = _answers(context, backend, name, weights, instances)
            checks[name] = check_counts(answers[name])
            graded = context.grade(grader, instances, answers[name], part=name)
            verdicts[name] = [of_first_run(verdict) for verdict in graded]
        compared = _counter_run(
            context, grader, instances, [(answers[n], verdicts[n]) for n in models]
        )
    verdicts |= zip(models, compared, strict=True)
    _write_verdicts(context, instances, verdicts)
    of = {split: [i for i in instances if i.split == split] for split in splits}
    summary = EvaluationSummary(
        splits={
            split: _split_result(some, {name: verdicts[name] for name in models}, trust)
            for split, some in of.items()
        },
        prompt=recipe.prompt.use,
        context=shown,
        answer=recipe.prompt.answer,
        model=backend.name,
        curve={
            split: tuple(_curve_point(m, some, verdicts[m.model]) for m in milestones)
            for split, some in of.items()
        },
        checks=checks,
    )
    write_json(context.dir.file("summary.json"), summary)
    figures = _figures(summary)
    return figures | costs([backend]) | figures  # plugins must not overwrite figures


def _counter_run(
    context: StageContext,
    grader: Grader,
    instances: Sequence[Instance],
    graded: Sequence[tuple[Sequence[Candidate], Sequence[Verdict]]],
) -> list[list[Verdict]]:
    """The verdicts on each model with the results of counter-runs, which all share."""
    candidates = [c for answers, _ in graded for c in answers]
    verdicts = [v for _, given in graded for v in given]
    checked = iter(context.counter_run(grader, instances, candidates, verdicts))
    return [list(islice(checked, len(given))) for _, given in graded]


def _write_verdicts(
    context: StageContext,
    instances: Sequence[Instance],
    verdicts: Mapping[str, Sequence[Verdict]],
) -> None:
    """Write the final verdicts and the harness's report of each model."""
    trust = context.table(GradeTable).counter_runs
    for name, given in verdicts.items():
        write_rows(context.dir.file(name, "verdicts.jsonl"), map(as_row, given))
        report = final_report(instances, given)
        if trust:
            report |= trusted_part(given)
        write_json(context.dir.file(name, "report.json"), report)


def _instances(context: StageContext, splits: Sequence[str]) -> list[Instance]:
    admitted = context.admitted()
    for split in splits:
        if not any(i.split == split for i in admitted):
            raise StageError(
                f"No instance of the {split} split can be graded.",
                hint=f"See {context.input('admit').file('admission.jsonl')}",
            )
    return [i for i in admitted if i.split in splits]


def _models(context: StageContext) -> dict[str, Path | None]:
    """The models to compare: base, and the trained ones."""
    models: dict[str, Path | None] = {"base": None}
    for stage in ("sft", "dpo"):
        if weights := context.weights(stage):
            models[stage] = weights
    return models


@dataclass(frozen=True)
class _Milestone:
    """A step of a training, with its weights.

    Attributes:
        model: Name of the model; the stage's name for the last step.
        seconds: Training time so far.
    """

    stage: str
    model: str
    weights: Path | None
    step: int
    seconds: float


def _milestones(
    context: StageContext, models: Mapping[str, Path | None]
) -> list[_Milestone]:
    """The steps whose weights the trainings kept, including the last ones."""
    found = []
    for stage in [name for name in models if models[name]]:
        folder = context.input(stage)
        for row in read_rows(folder.file("milestones.jsonl")):
            midst = "weights" in row
            model = f"{stage}-{row['step']}" if midst else stage
            weights = folder.file(row["weights"]) if midst else models[stage]
            found.append(_Milestone(stage, model, weights, row["step"], row["seconds"]))
    return found


def _answers(
    context: StageContext,
    backend: Backend,
    name: str,
    weights: Path | None,
    instances: Sequence[Instance],
) -> list[Candidate]:
    """One greedy answer per instance, and the predictions that the harness reads."""
    recipe = context.recipe
    settings = context.table(EvaluateTable)
    prompts = context.prompts()
    requests = [
        SampleRequest(
            instance_id=i.instance_id,
            sample=0,
            prompt=prompts[i.instance_id],
            max_new_tokens=settings.max_new_tokens,
            temperature=0.0,
            top_p=1.0,
            seed=draw_seed(recipe.seed, i.instance_id, 0),
        )
        for i in instances
    ]
    keep_responses(backend, context.dir.file(name))
    open_sampler = partial(
        backend.open_sampler, weights, batch_size=settings.batch_size
    )
    candidates = context.answers(
        open_sampler, requests, instances, part=name, model=f"{recipe.name}-{name}"
    )
    predictions = context.dir.file(name, "predictions.jsonl")
    write_rows(predictions, map(prediction_row, candidates))
    return candidates


def _split_result(
    instances: Sequence[Instance],
    verdicts: Mapping[str, Sequence[Verdict]],
    trust: bool,
) -> SplitResult:
    """Rates of each model on one split, and comparisons of each two models.

    As in the harness, an instance that the machine failed to grade is not resolved;
    `statuses` counts them.
    """
    ids = {i.instance_id for i in instances}
    resolved = {name: _resolved(instances, given) for name, given in verdicts.items()}
    models = {}
    for name, given in verdicts.items():
        mine = (v for v in given if v.instance_id in ids)
        counts = verdict_counts(mine, counter_runs=trust)
        models[name] = ModelResult(
            **vars(Rate.of(resolved[name].values())), **vars(counts)
        )
    return SplitResult(
        models=models,
        comparisons=tuple(
            Comparison(first, second, paired(resolved[first], resolved[second]))
            for first, second in combinations(resolved, 2)
        ),
    )


def _curve_point(
    milestone: _Milestone, instances: Sequence[Instance], verdicts: Sequence[Verdict]
) -> CurvePoint:
    return CurvePoint(
        stage=milestone.stage,
        step=milestone.step,
        seconds=milestone.seconds,
        **vars(Rate.of(_resolved(instances, verdicts).values())),
    )


def _resolved(
    instances: Sequence[Instance], verdicts: Sequence[Verdict]
) -> dict[str, bool]:
    """Whether a model resolves each of the instances, by id."""
    passed = {v.instance_id for v in verdicts if v.status is Status.RESOLVED}
    return {i.instance_id: i.instance_id in passed for i in instances}


def _figures(summary: EvaluationSummary) -> StageSummary:
    figures: StageSummary = {}
    for split, content in summary.splits.items():
        models = content.models.items()
        rates = (f"{name} {rate.resolved}/{rate.total}" for name, rate in models)
        figures[split] = " ".join(rates)
    return {**figures, "context": context_label(summary)}
