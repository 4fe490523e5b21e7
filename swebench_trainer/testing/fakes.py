"""Working fakes, as a plugin: source, backend and grader, each called `fake`.

They do the real work on a small scale, instantly and without a network, so that a test
can make a whole run around the one part under test.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import PositiveInt

from swebench_trainer.contracts import (
    GradeJob,
    Outcome,
    Sample,
    SampleRequest,
    SourceData,
    TrainRequest,
)
from swebench_trainer.hookspecs import Register, hookimpl
from swebench_trainer.recipe.models import DataTable, DpoTable, SftTable
from swebench_trainer.store.digest import digest
from swebench_trainer.testing.examples import PATCH, an_instance
from swebench_trainer.types import Instance, Pair, SftRow, Status, as_row


class FakeSourceTable(DataTable):
    """Keys of `[data] use = "fake"`."""

    count: PositiveInt = 4
    """Number of instances, each from its own repository."""


class FakeSource:
    """Made-up instances without files on disk."""

    def __init__(self, table: FakeSourceTable) -> None:
        self._count = table.count

    def load(self) -> SourceData:
        """See `Source.load`."""
        return SourceData(tuple(_instance(n) for n in range(1, self._count + 1)))

    def digest(self) -> str:
        """See `Source.digest`."""
        return digest([as_row(instance) for instance in self.load().instances])


def _instance(number: int) -> Instance:
    # All fixes differ, or the leakage check would refuse.
    greeting = digest(number)[:12]
    return an_instance(
        number,
        repo=f"example/greet-{number}",
        base_commit=f"{number:040d}",
        patch=PATCH.replace("Hello, ", f"{greeting} "),
    )


class FakeBackend:
    """Memorizes its training rows.

    By the seed of each request it reproduces about half of the learned answers and
    corrupts the others; unknown prompts get no patch. DPO removes the corrupted answers
    that were rejected.
    """

    name = "fake"

    def __init__(self, table: Any = None) -> None:
        pass

    def check(self) -> None:
        """See `Backend.check`."""

    def train_sft(
        self, rows: Sequence[SftRow], settings: SftTable, request: TrainRequest
    ) -> Path:
        """See `Backend.train_sft`."""
        learned = {}
        for number, row in enumerate(rows, start=1):
            learned[row.prompt] = row.completion
            request.step(number, len(rows), "learned")
        return _save(request.out, {"learned": learned, "rejected": []})

    def train_dpo(
        self, pairs: Sequence[Pair], settings: DpoTable, request: TrainRequest
    ) -> Path:
        """See `Backend.train_dpo`."""
        mind = _load(request.start)
        mind["rejected"] += [pair.rejected for pair in pairs]
        return _save(request.out, mind)

    def open_sampler(self, weights: Path | None, *, batch_size: int) -> FakeSampler:
        """See `Backend.open_sampler`."""
        return FakeSampler(_load(weights))


class FakeSampler:
    """Reproduces learned answers, or corrupted ones."""

    def __init__(self, mind: dict[str, Any]) -> None:
        self._mind = mind

    def sample(self, requests: Sequence[SampleRequest]) -> Iterator[Sample]:
        """See `Sampler.sample`."""
        for request in requests:
            text = self._answer(request)
            yield Sample(request.instance_id, request.sample, text, finish="stop")

    def _answer(self, request: SampleRequest) -> str:
        text: str | None = self._mind["learned"].get(request.prompt)
        if text is None:
            return "I do not know."
        chance = random.Random(request.seed).random()  # noqa: S311 - no secret
        worse = text if chance < 0.5 else _spoiled(text)
        if chance > 0.9:
            worse = "I do not know."
        right = not request.temperature or worse in self._mind["rejected"]
        return text if right else worse

    def close(self) -> None:
        """See `Sampler.close`."""


def _spoiled(text: str) -> str:
    """A diff that still applies, but adds different code."""
    return "".join(
        f"{line.rstrip()}.upper()\n" if _is_added(line) else line
        for line in text.splitlines(keepends=True)
    )


def _is_added(line: str) -> bool:
    return line.startswith("+") and not line.startswith("+++")


def _load(weights: Path | None) -> dict[str, Any]:
    if weights is None:
        return {"learned": {}, "rejected": []}
    mind: dict[str, Any] = json.loads((weights / "mind.json").read_text())
    return mind


def _save(out: Path, mind: dict[str, Any]) -> Path:
    folder = out / "model"
    folder.mkdir(exist_ok=True)
    (folder / "mind.json").write_text(json.dumps(mind))
    return folder


class FakeGrader:
    """Resolves patches that change the same lines as gold; others apply and fail.

    A patch that does not start with `diff` does not apply. The first `faults` jobs end
    with `infra_error`.
    """

    def __init__(self, *, faults: int = 0) -> None:
        self.faults = faults
        self.graded: list[GradeJob] = []

    def check(self, instances: Sequence[Instance]) -> None:
        """See `Grader.check`."""

    def grade(self, jobs: Sequence[GradeJob]) -> Iterator[tuple[GradeJob, Outcome]]:
        """See `Grader.grade`."""
        for job in jobs:
            self.graded.append(job)
            yield job, self._outcome(job)

    def _outcome(self, job: GradeJob) -> Outcome:
        if self.faults:
            self.faults -= 1
            return Outcome(Status.INFRA_ERROR, {}, reason="the fake machine failed")
        patch = job.candidate.patch
        if not patch.strip():
            return Outcome(Status.UNRESOLVED, {"resolved": False})
        if not patch.startswith("diff"):
            return Outcome(Status.NOT_APPLIED, {}, reason="not a diff")
        resolved = _changes(patch) == _changes(job.instance.patch)
        status = Status.RESOLVED if resolved else Status.UNRESOLVED
        return Outcome(status, {"resolved": resolved})

    def close(self) -> None:
        """See `Grader.close`."""


def _changes(patch: str) -> list[str]:
    return [line for line in patch.splitlines() if line[:1] in ("+", "-")]


@hookimpl
def register_sources(register: Register) -> None:
    """Made-up instances."""
    register("fake", FakeSource, config=FakeSourceTable)


@hookimpl
def register_backends(register: Register) -> None:
    """A model that memorizes its training rows."""
    register("fake", FakeBackend)


@hookimpl
def register_graders(register: Register) -> None:
    """A grader that compares with gold."""
    register("fake", lambda table: FakeGrader(), summary="compares with gold")
