"""The `generated` source: draws its tasks once, into the user's cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)

from swebench_trainer.contracts import SourceData
from swebench_trainer.data.generated.functions import (
    forms_text,
    shortest_forms,
)
from swebench_trainer.data.generated.tasks import HELDOUT_FROM, LARGEST, draw_tasks
from swebench_trainer.errors import DataError
from swebench_trainer.recipe.models import DataTable, Holdout
from swebench_trainer.store.cache import cached, user_cache
from swebench_trainer.store.digest import digest
from swebench_trainer.store.jsonl import disk_errors, each_row, write_rows
from swebench_trainer.store.spool import Spool
from swebench_trainer.types import Instance, as_row, from_row

VERSION = 2
"""Grows when the same settings and forms would give other tasks."""


class GeneratedTable(DataTable):
    """Keys of `[data] use = "generated"`."""

    count: PositiveInt = 4000
    """Tasks to train on."""
    forms: NonNegativeInt = 0
    """So many kinds of functions, the shortest ones, make up a smaller world that is learned sooner; 0 takes all."""
    numbers: bool = True
    """Whether there are kinds whose functions have small numbers of their own, which a small model learns to quote last, if at all."""
    tickets: Annotated[float, Field(ge=0, le=1)] = 0
    """Share of the functions whose docstring ends in the number of a ticket, which is hard to quote without a slip."""
    graded: NonNegativeInt = 400
    """So many of them come with tests, for `[generate]`; the others are for `[sft]` alone."""
    heldout: PositiveInt = 200
    """Tasks to evaluate on, with tests. They share no function, issue or longer change with any other."""
    seed: NonNegativeInt = 0
    """What the tasks are drawn from; another one gives others."""
    holdout: Holdout = Holdout(by="time", after=date.fromisoformat(HELDOUT_FROM))
    """Which instances are kept back: by default the `heldout` tasks, which are dated later than the others."""

    @model_validator(mode="after")
    def _forms_fill_a_module(self) -> Self:
        there_are = len(shortest_forms(0, numbered=self.numbers))
        if self.forms and not LARGEST <= self.forms <= there_are:
            raise ValueError(
                f"forms is 0 for all, or between {LARGEST}, which a module may need, "
                f"and {there_are}, which there are"
            )
        return self

    @model_validator(mode="after")
    def _some_are_graded(self) -> Self:
        if self.graded > self.count:
            raise ValueError(
                f"graded = {self.graded} is more than count = {self.count}"
            )
        return self


class GeneratedSource:
    """Small modules with a fault, issues about them, and tests; drawn from a seed."""

    def __init__(self, table: GeneratedTable) -> None:
        self._table = table

    def load(self) -> SourceData:
        """Reads the tasks, which are made on first use. See `Source.load`.

        Raises:
            DataError: The cache cannot be written to, or so many tasks that share
                nothing cannot be drawn.
        """
        place = user_cache("generated", self.digest())
        with disk_errors(place):
            cached(place, lambda new, _: self._write(new))
        return SourceData(Spool(_read(place)))

    def digest(self) -> str:
        """Digest of what decides the tasks: settings and forms."""
        table = self._table
        world = (table.forms, table.numbers, table.tickets)
        return digest([VERSION, forms_text(), *self._settings(), *world])

    def _settings(self) -> tuple[int, int, int, int]:
        table = self._table
        return (table.seed, table.heldout, table.graded, table.count)

    def _write(self, place: Path) -> None:
        """Writes the rows, and a directory for the files of each task."""

        def instances() -> Iterator[Instance]:
            table = self._table
            forms = shortest_forms(table.forms, numbered=table.numbers)
            tasks = draw_tasks(*self._settings(), forms, table.tickets)
            for task in tasks:
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
