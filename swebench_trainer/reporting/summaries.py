"""Summaries that stages write, and that tables, the model card and curves show."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from swebench_trainer.answers.checks import CheckCounts
from swebench_trainer.contracts import Bottlenecks
from swebench_trainer.reporting.metrics import PairedResult, Rate
from swebench_trainer.store.jsonl import damaged_value
from swebench_trainer.types import LeakageReport, Status, Strength, Verdict, from_row

T = TypeVar("T")
FAULTS = (Status.INFRA_ERROR, Status.OOM, Status.TIMEOUT)
"""Statuses that leave a candidate ungraded, except for explained timeouts."""


@dataclass(frozen=True)
class SuspiciousPass:
    """A pass with flags, which is not used for training."""

    instance_id: str
    sample: int
    flags: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.instance_id} #{self.sample} ({', '.join(self.flags)})"


@dataclass(frozen=True)
class TrustCounts:
    """Results of counter-runs.

    Attributes:
        strengths: Number of trusted passes by `Strength`, the strongest first.
        unchecked: Number of passes without flags of instances whose tests cannot be
            changed so that gold fails exactly the changed ones.
    """

    strengths: Mapping[str, int]
    unchecked: int = 0

    @property
    def trusted(self) -> int:
        """Number of trusted passes."""
        return sum(self.strengths.values())


@dataclass(frozen=True)
class VerdictCounts:
    """Verdicts on the answers of a model.

    Attributes:
        statuses: Number of verdicts by `Status`.
        explained_timeouts: Timeouts that the patch caused.
        trust: Results of counter-runs; `None` if there were none.
    """

    statuses: Mapping[str, int]
    explained_timeouts: int = 0
    suspicious: tuple[SuspiciousPass, ...] = ()
    trust: TrustCounts | None = None

    @property
    def ungraded(self) -> int:
        """Answers without a verdict because the machine failed."""
        faults = sum(self.statuses.get(status, 0) for status in FAULTS)
        return faults - self.explained_timeouts


def verdict_counts(
    verdicts: Iterable[Verdict], *, counter_runs: bool = False
) -> VerdictCounts:
    """Counts verdicts and lists the suspicious passes.

    Args:
        verdicts: The verdicts.
        counter_runs: Whether passes had counter-runs.
    """
    given = list(verdicts)
    return VerdictCounts(
        statuses=dict(Counter(v.status.value for v in given).most_common()),
        explained_timeouts=sum(
            v.explained and v.status is Status.TIMEOUT for v in given
        ),
        suspicious=tuple(
            SuspiciousPass(v.instance_id, v.sample, v.flags)
            for v in given
            if v.status is Status.RESOLVED and v.flags
        ),
        trust=_trust_counts(given) if counter_runs else None,
    )


def _trust_counts(verdicts: Iterable[Verdict]) -> TrustCounts:
    found = Counter(v.strength for v in verdicts if v.trusted_pass)
    strengths = {str(s): found[s] for s in Strength if found[s]}
    return TrustCounts(strengths, unchecked=found[None])


@dataclass(frozen=True, kw_only=True)
class GradeSummary(VerdictCounts):
    """Content of `stages/grade/summary.json`.

    Attributes:
        candidates: Number of candidates.
        retested: Patches whose tests ran more than once.
        flaky: How many of these had different results.
        flaky_ci95: 95% confidence interval of the flaky share.
    """

    candidates: int
    retested: int
    flaky: int
    flaky_ci95: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class ModelResult(VerdictCounts, Rate):
    """Result of one model on one split."""


@dataclass(frozen=True, kw_only=True)
class CurvePoint(Rate):
    """Result of a model saved during training.

    Attributes:
        stage: The training.
        seconds: Training time until then.
    """

    stage: str
    step: int
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """Two models on the same instances."""

    first: str
    second: str
    result: PairedResult


@dataclass(frozen=True)
class SplitResult:
    """Results of all models on one split, in order of training."""

    models: Mapping[str, ModelResult]
    comparisons: tuple[Comparison, ...] = ()


@dataclass(frozen=True)
class EvaluationSummary:
    """Content of `stages/evaluate/summary.json`.

    Attributes:
        splits: Results by split.
        prompt: Prompt style.
        context: Source of the files in the prompts, such as `oracle`.
        answer: Answer format.
        model: Name of the backend.
        curve: Results of models saved during training, by split.
        checks: Static checks of the answers, by model.
    """

    splits: Mapping[str, SplitResult]
    prompt: str
    context: str
    answer: str = ""
    model: str = ""
    curve: Mapping[str, tuple[CurvePoint, ...]] = field(default_factory=dict)
    checks: Mapping[str, CheckCounts] = field(default_factory=dict)


@dataclass(frozen=True)
class LengthCounts:
    """Pairs by which answer is longer (by a factor above about 1.2)."""

    chosen_longer: int
    similar: int
    rejected_longer: int


@dataclass(frozen=True)
class SurfaceAccuracy:
    """Accuracy of a classifier that sees only the surface of answers.

    Attributes:
        pairs: Pairs that it classified.
        accuracy: Share of correct ones; 0.5 is chance.
        ci95: 95% confidence interval of the accuracy.
        chosen_higher: Share of pairs in which `chosen` has the larger value, by
            feature.
    """

    pairs: int
    accuracy: float
    ci95: tuple[float, float]
    chosen_higher: Mapping[str, float]


@dataclass(frozen=True)
class PairStats:
    """Content of `stages/pairs/stats.json`.

    Attributes:
        graded: Whether rejects failed their tests.
        instances: Instances with candidates.
        by_chosen: Pairs by kind of `chosen`: `gold`, `sample` or `none`.
        restyled: Pairs whose reject was rewritten in the answer format.
        compared_by_changed_lines: Instances with patches that could only be compared by
            their changed lines.
        surface: `None` for too few pairs.
        dropped_by_plugins: Pairs by the reason of the plugin that dropped them.
        below_trust: Passes that are trusted less than `[pairs] trust` requires.
    """

    strategy: str
    graded: bool
    pairs: int
    instances: int
    by_strategy: Mapping[str, int]
    by_tier: Mapping[str, int]
    by_chosen: Mapping[str, int]
    by_repository: Mapping[str, int]
    by_instance: Mapping[str, int]
    restyled: int
    compared_by_changed_lines: int
    lengths: LengthCounts
    surface: SurfaceAccuracy | None
    dropped_by_plugins: Mapping[str, int]
    bottlenecks: Bottlenecks
    below_trust: int = 0


@dataclass(frozen=True)
class RunResults:
    """Results of a run, as far as it has them."""

    evaluation: EvaluationSummary | None = None
    grading: GradeSummary | None = None
    leakage: LeakageReport | None = None

    @classmethod
    def read(cls, read: Callable[[str, str], Any]) -> RunResults:
        """Decodes the summaries of a run.

        Args:
            read: Returns the value of a stage's JSON file, or `None`.
        """
        return cls(
            _decoded(evaluation_summary, read, "evaluate", "summary.json"),
            _decoded(grade_summary, read, "grade", "summary.json"),
            _decoded(LeakageReport.parse, read, "prepare", "leakage.json"),
        )


def _decoded(
    decode: Callable[[Any], T], read: Callable[[str, str], Any], stage: str, file: str
) -> T:
    """The value of a stage's JSON file.

    Raises:
        StageError: The file is damaged.
    """
    value = read(stage, file)
    try:
        return decode(value)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise damaged_value(f"stages/{stage}/{file}", error) from error


def grade_summary(row: Mapping[str, Any] | None) -> GradeSummary | None:
    """Decodes `summary.json` of the grade stage, also of older runs."""
    return from_row(GradeSummary, _converted(row)) if row else None


def evaluation_summary(row: Mapping[str, Any] | None) -> EvaluationSummary | None:
    """Decodes `summary.json` of the evaluate stage, also of older runs."""
    return from_row(EvaluationSummary, _converted_evaluation(row)) if row else None


# Files of runs before format 2 have phrases as keys.

_OLD_SUSPICIOUS = re.compile(r"(?P<id>.*) #(?P<sample>\d+) \((?P<flags>.*)\)")
_OLD_CHECKS = {
    "looked at": "checked",
    "does not apply": "refused",
    "does not parse": "unparsable",
}


def _converted(row: Mapping[str, Any]) -> dict[str, Any]:
    """Verdict counts of a file in the current form."""
    found = {key.replace(" ", "_"): value for key, value in row.items()}
    if "not_believed" in found:
        matches = map(_OLD_SUSPICIOUS.fullmatch, found.pop("not_believed"))
        found["suspicious"] = [
            SuspiciousPass(m["id"], int(m["sample"]), tuple(m["flags"].split(", ")))
            for m in matches
            if m
        ]
    return found


def _converted_evaluation(row: Mapping[str, Any]) -> dict[str, Any]:
    checks = {
        model: {_OLD_CHECKS.get(key, key): count for key, count in counts.items()}
        for model, counts in row.get("checks", {}).items()
    }
    splits = {name: _converted_split(split) for name, split in row["splits"].items()}
    context = row.get("context", row["prompt"])
    return {**row, "context": context, "checks": checks, "splits": splits}


def _converted_split(split: Mapping[str, Any]) -> dict[str, Any]:
    models = {model: _converted(found) for model, found in split["models"].items()}
    comparisons = list(split.get("comparisons", ()))
    for names, result in split.get("paired", {}).items():
        second, _, first = names.partition(" against ")
        only = {
            "only_first": result[f"only {first}"],
            "only_second": result[f"only {second}"],
        }
        comparisons.append(
            {"first": first, "second": second, "result": {**result, **only}}
        )
    return {"models": models, "comparisons": comparisons}
