"""The `generated` source: generates its tasks once, in the user cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from swebench_trainer.contracts import SourceData
from swebench_trainer.data.generated.functions import forms_text, shortest_forms
from swebench_trainer.data.generated.tasks import HELDOUT_FROM, LARGEST, draw_tasks
from swebench_trainer.errors import DataError
from swebench_trainer.recipe.models import DataTable, Holdout
from swebench_trainer.store.cache import cached, user_cache
from swebench_trainer.store.digest import digest
from swebench_trainer.store.jsonl import disk_errors, each_row, write_rows
from swebench_trainer.store.spool import Spool
from swebench_trainer.types import Instance, as_row, from_row

VERSION = 2
"""Version of the generator; increased when the same settings give different tasks."""


class GeneratedTable(DataTable):
    """Keys of `[data] use = "generated"`."""

    count: PositiveInt = 4000
    """Number of training tasks."""
    forms: NonNegativeInt = 0
    """Number of function templates, shortest first; fewer are learned sooner. 0 means all."""
    numbers: bool = True
    """Whether to include templates with random small numbers, which small models find hardest to quote."""
    tickets: Annotated[float, Field(ge=0, le=1)] = 0
    """Share of the functions whose docstring ends with a ticket number, which is hard to quote exactly."""
    graded: NonNegativeInt = 400
    """Number of training tasks with tests, for `[generate]`; the others are only for `[sft]`."""
    heldout: PositiveInt = 200
    """Number of held-out tasks, with tests. They share no function, issue or long change with other tasks."""
    seed: NonNegativeInt = 0
    """Seed of the tasks."""
    holdout: Holdout = Holdout(by="time", after=date.fromisoformat(HELDOUT_FROM))
    """Rule for the held-out instances; by default the `heldout` tasks, which have later dates."""

    @model_validator(mode="after")
    def _counts_are_possible(self) -> Self:
        available = len(shortest_forms(0, numbered=self.numbers))
        if self.forms and not LARGEST <= self.forms <= available:
            raise ValueError(
                f"forms must be 0 (all) or between {LARGEST} (the minimum for a module) "
                f"and {available}"
            )
        if self.graded > self.count:
            raise ValueError(
                f"graded = {self.graded} is more than count = {self.count}"
            )
        return self


class GeneratedSource:
    """Small repair tasks drawn from a seed, to train a model from scratch."""

    def __init__(self, table: GeneratedTable) -> None:
        self._table = table

    def load(self) -> SourceData:
        """Read the tasks, generating them on first use. See `Source.load`.

        Raises:
            DataError: The cache is not writable, or not enough distinct held-out
                tasks exist.
        """
        place = user_cache("generated", self.digest())
        with disk_errors(place):
            cached(place, lambda new, _: self._write(new))
        return SourceData(Spool(_read(place)))

    def digest(self) -> str:
        """Digest of the settings and forms."""
        table = self._table
        counts = [table.seed, table.heldout, table.graded, table.count]
        functions = [table.forms, table.numbers, table.tickets]
        return digest([VERSION, forms_text(), *counts, *functions])

    def _write(self, place: Path) -> None:
        """Write the rows, and a directory with the files of each task."""

        def instances() -> Iterator[Instance]:
            table = self._table
            forms = shortest_forms(table.forms, numbered=table.numbers)
            counts = (table.heldout, table.graded, table.count)
            for task in draw_tasks(table.seed, *counts, forms, table.tickets):
                repository = _repository(place, task.instance)
                repository.mkdir(parents=True)
                for path, text in task.files.items():
                    (repository / path).write_bytes(text.encode())
                yield task.instance

        try:
            place.mkdir()
            write_rows(place / _ROWS, map(as_row, instances()))
        except ValueError as error:
            raise DataError(f"{error}.", hint="Lower [data] heldout.") from error


_ROWS = "instances.jsonl"


def _repository(place: Path, instance: Instance) -> Path:
    return place / "repositories" / instance.instance_id


def _read(place: Path) -> Iterator[Instance]:
    for row in each_row(place / _ROWS):
        instance = from_row(Instance, row)
        snapshot = str(_repository(place, instance))
        yield dataclasses.replace(instance, snapshot=snapshot, source="generated")
