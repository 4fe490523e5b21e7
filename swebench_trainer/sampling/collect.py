"""Collection of answers in a file that survives a kill, from one or several samplers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from swebench_trainer.contracts import ItemProgress, Sample, Sampler, SampleRequest
from swebench_trainer.store.jsonl import RowWriter, each_value, write_rows
from swebench_trainer.types import Candidate, as_row, is_unicode


def collect(
    open_sampler: Callable[[], Sampler],
    requests: Sequence[SampleRequest],
    to_candidate: Callable[[Sample], Candidate],
    path: Path,
    done: ItemProgress,
) -> list[Candidate]:
    """Answer the requests that have no candidate in `path` yet.

    Args:
        open_sampler: Opens the sampler; only called if requests are left.
        requests: Requests with distinct `(instance_id, sample)`.
        to_candidate: Extracts the patch from an answer.
        path: JSONL file of the candidates; finally in the order of the requests.
        done: Progress callback, called after each answer.

    Returns:
        The candidates in the order of the requests, without unanswered ones.
    """
    found = {_key(value): value for value in each_value(path, Candidate, _key)}
    missing = [r for r in requests if (r.instance_id, r.sample) not in found]
    if missing:
        sampler = open_sampler()
        try:
            with RowWriter(path) as rows:
                for sample in sampler.sample(missing):
                    candidate = to_candidate(_without_surrogates(sample))
                    rows.write(as_row(candidate))
                    found[candidate.instance_id, candidate.sample] = candidate
                    name = f"{candidate.instance_id} #{candidate.sample}"
                    done(name, len(found), len(requests), str(candidate.extraction))
        finally:
            sampler.close()
    keys = [(r.instance_id, r.sample) for r in requests]
    ordered = [found[key] for key in keys if key in found]
    write_rows(path, map(as_row, ordered))
    return ordered


def _key(candidate: Candidate) -> tuple[str, int]:
    return candidate.instance_id, candidate.sample


def _without_surrogates(sample: Sample) -> Sample:
    """The answer with U+FFFD for lone surrogates, which tokenizers reject."""
    if is_unicode(sample.text):
        return sample
    units = sample.text.encode("utf-16", "surrogatepass")
    return dataclasses.replace(sample, text=units.decode("utf-16", "replace"))


@dataclass(frozen=True)
class NamedSampler:
    """One of several samplers.

    Attributes:
        name: Model name for samples that do not name their model.
        open_sampler: Opens the sampler; only called if it has requests.
    """

    name: str
    open_sampler: Callable[[], Sampler]


class SamplerSequence:
    """A `Sampler` that runs several samplers one after another.

    Args:
        samplers: The n-th one answers the samples `n * share` to `(n + 1) * share - 1`.
        share: Number of samples per instance of each sampler.
    """

    def __init__(self, samplers: Sequence[NamedSampler], share: int) -> None:
        self._samplers = samplers
        self._share = share

    def sample(self, requests: Sequence[SampleRequest]) -> Iterator[Sample]:
        """See `Sampler.sample`."""
        for number, named in enumerate(self._samplers):
            own = [r for r in requests if r.sample // self._share == number]
            if not own:
                continue
            with closing(named.open_sampler()) as sampler:
                for sample in sampler.sample(own):
                    model = sample.model or named.name
                    yield dataclasses.replace(sample, model=model)

    def close(self) -> None:
        """Do nothing: each sampler is closed after its last answer."""
