"""Collects the answers to many requests in a file that survives a kill."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from swebench_trainer.contracts import ItemProgress, Sample, Sampler, SampleRequest
from swebench_trainer.store.jsonl import RowWriter, read_rows, write_rows
from swebench_trainer.types import Candidate, as_row, from_row, is_unicode


def collect(
    open_sampler: Callable[[], Sampler],
    requests: Sequence[SampleRequest],
    to_candidate: Callable[[Sample], Candidate],
    path: Path,
    done: ItemProgress,
) -> list[Candidate]:
    """Answers the requests that `path` has no candidate for yet.

    Args:
        open_sampler: Called only if something is left to do.
        requests: Each `(instance_id, sample)` once.
        to_candidate: Takes the patch from an answer.
        path: JSONL file of the candidates; in the order of the requests when
            all are there.
        done: Called after each answer.

    Returns:
        The candidates in the order of the requests, without those that the
        sampler has no answer for.
    """
    found = {
        (candidate.instance_id, candidate.sample): candidate
        for candidate in (from_row(Candidate, row) for row in read_rows(path))
    }
    owed = [r for r in requests if (r.instance_id, r.sample) not in found]
    if owed:
        sampler = open_sampler()
        try:
            with RowWriter(path) as rows:
                for sample in sampler.sample(owed):
                    candidate = to_candidate(_writable(sample))
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


def _writable(sample: Sample) -> Sample:
    """The answer with U+FFFD for lone surrogates, which JSON can hold and no tokenizer takes."""
    if is_unicode(sample.text):
        return sample
    units = sample.text.encode("utf-16", "surrogatepass")
    return dataclasses.replace(sample, text=units.decode("utf-16", "replace"))
