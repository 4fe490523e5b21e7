"""An example plugin: backend, pair strategy, grader and observer in one file.

The backend `parrot` memorizes its rows, so whole runs take seconds. It samples
memorized answers or, depending on the seed, spoiled ones; after DPO it no longer
returns rejected answers.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from swebench_trainer import hookimpl
from swebench_trainer.contracts import (
    GradedInstance,
    GradeJob,
    Outcome,
    Sample,
    SampleRequest,
    TrainRequest,
)
from swebench_trainer.recipe.models import (
    DpoTable,
    GradeTable,
    ModelTable,
    PairsTable,
    SftTable,
)
from swebench_trainer.testing import FakeGrader
from swebench_trainer.types import Pair, SftRow, Status, Tier, Verdict


class ParrotTable(ModelTable):
    """Keys of `[model] use = "parrot"`."""

    spoil: float = 0.5
    """Share of sampled answers that are spoiled, before DPO."""
    pause: float = 0.0
    """Delay per answer, in seconds."""
    breaks: int = Field(default=0, json_schema_extra={"volatile": True})
    """Number of answers before an error, to test failures; 0 means never."""


class Parrot:
    """A backend that memorizes its training rows."""

    name = "parrot"

    def __init__(self, table: ParrotTable) -> None:
        self._table = table

    def check(self) -> None:
        """Pass: there are no prerequisites."""

    def train_sft(
        self, rows: Sequence[SftRow], settings: SftTable, request: TrainRequest
    ) -> Path:
        """Store the completion of each prompt."""
        memory = {row.prompt: row.completion for row in rows}
        for number in range(len(rows)):
            request.step(number + 1, len(rows), "learnt")
        return self._save(request.out, {"memory": memory, "shuns": []})

    def train_dpo(
        self, pairs: Sequence[Pair], settings: DpoTable, request: TrainRequest
    ) -> Path:
        """Store the rejected answers."""
        mind = self._load(request.start)
        mind["shuns"] += sorted({pair.rejected for pair in pairs})
        return self._save(request.out, mind)

    def open_sampler(self, weights: Path | None, *, batch_size: int) -> ParrotSampler:
        """Open the stored answers; the base model has none."""
        return ParrotSampler(self._load(weights), self._table)

    def _load(self, weights: Path | None) -> dict[str, Any]:
        if weights is None:
            return {"memory": {}, "shuns": []}
        return json.loads((weights / "memory.json").read_text())

    def _save(self, out: Path, mind: dict[str, Any]) -> Path:
        folder = out / "model"
        folder.mkdir(exist_ok=True)
        (folder / "memory.json").write_text(json.dumps(mind))
        return folder


class ParrotSampler:
    """Returns stored answers, sometimes spoiled."""

    def __init__(self, mind: dict[str, Any], table: ParrotTable) -> None:
        self._mind = mind
        self._table = table

    def sample(self, requests: Sequence[SampleRequest]) -> Iterator[Sample]:
        """Yield one answer per request."""
        for number, request in enumerate(requests):
            if self._table.breaks and number == self._table.breaks:
                raise LookupError("the parrot has flown")
            time.sleep(self._table.pause)
            text = self._mind["memory"].get(request.prompt, "")
            chance = random.Random(request.seed).random()
            if request.temperature and chance < self._table.spoil:
                spoiled = text.replace("=======\n", "=======\n)spoiled(\n")
                text = text if spoiled in self._mind["shuns"] else spoiled
            yield Sample(request.instance_id, request.sample, text, finish="stop")

    def close(self) -> None:
        """Do nothing: no resources are held."""


class FirstPass:
    """Pairs the first pass of each instance with its first failure."""

    def __init__(self, table: PairsTable) -> None:
        pass

    def pairs(self, graded: Sequence[GradedInstance]) -> Iterable[Pair]:
        """Yield at most one pair per instance."""
        for item in graded:
            passed = [c for c, v in item.graded if v.trusted_pass]
            failed = [
                (c, v) for c, v in item.graded if v.reward in (0, -1) and not v.flaky
            ]
            if passed and failed:
                rejected, verdict = failed[0]
                yield Pair(
                    item.instance.instance_id,
                    item.prompt,
                    passed[0].text,
                    rejected.text,
                    "first-pass",
                    chosen_source=f"sample:{passed[0].sample}",
                    rejected_source=f"sample:{rejected.sample}",
                    tier=tier_of(verdict),
                )


def tier_of(verdict: Verdict) -> Tier:
    """The tier of a failure."""
    return Tier.FAILS if verdict.reward == 0 else Tier(verdict.status)


@hookimpl
def register_backends(register):
    register(
        "parrot", Parrot, config=ParrotTable, summary="memorizes its training rows"
    )


class BelieverTable(GradeTable):
    """Keys of `[grade] use = "believer"`."""

    pause: float = 0.0
    """Delay per candidate, in seconds."""
    wavers: float = 0.0
    """Share of patches whose repeated runs contradict the first."""
    doubts: str = ""
    """Instance whose patches all fail, to test refusals; `all` means every one."""


class Believer(FakeGrader):
    """Passes patches that change the same lines as gold."""

    def __init__(self, table: BelieverTable) -> None:
        super().__init__()
        self._table = table

    def _outcome(self, job: GradeJob) -> Outcome:
        time.sleep(self._table.pause)
        if self._table.doubts in (job.instance.instance_id, "all"):
            return Outcome(Status.UNRESOLVED, {"resolved": False}, reason="doubted")
        outcome = super()._outcome(job)
        chance = random.Random(job.candidate.patch).random()
        if job.repeat and chance < self._table.wavers:
            passed = outcome.status is Status.RESOLVED
            status = Status.UNRESOLVED if passed else Status.RESOLVED
            return Outcome(status, {"resolved": not passed}, reason="it wavers")
        return outcome


@hookimpl
def register_graders(register):
    register("believer", Believer, config=BelieverTable, summary="runs nothing")


@hookimpl
def register_pair_strategies(register):
    register("first-pass", FirstPass, summary="one pair per instance")


@hookimpl
def run_started(event):
    (event.run_dir / "observed.txt").write_text("")


@hookimpl
def stage_finished(event):
    observed.append(event.stage)


@hookimpl
def report_rows(run_dir):
    Path(run_dir, "observed.txt").write_text("\n".join(observed))
    return {"stages observed": str(len(observed))}


observed: list[str] = []
