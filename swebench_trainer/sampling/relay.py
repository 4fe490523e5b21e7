"""Several writers as one sampler: each has its own share of the sample numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from swebench_trainer.contracts import Sample, Sampler, SampleRequest


@dataclass(frozen=True)
class Writer:
    """One of several.

    Attributes:
        name: For samples that do not name their model.
        open_sampler: Called when it is this writer's turn, and something is left to do.
    """

    name: str
    open_sampler: Callable[[], Sampler]


class Relay:
    """A `Sampler` that asks one writer after another.

    Args:
        writers: The n-th writes the samples `n * share` to `(n + 1) * share - 1`.
        share: Samples that each of them writes of an instance.
    """

    def __init__(self, writers: Sequence[Writer], share: int) -> None:
        self._writers = writers
        self._share = share

    def sample(self, requests: Sequence[SampleRequest]) -> Iterator[Sample]:
        """See `Sampler.sample`."""
        for number, writer in enumerate(self._writers):
            mine = [r for r in requests if r.sample // self._share == number]
            if not mine:
                continue
            with closing(writer.open_sampler()) as sampler:
                for sample in sampler.sample(mine):
                    yield replace(sample, model=sample.model or writer.name)

    def close(self) -> None:
        """Holds nothing: each writer is closed when its turn is over."""
