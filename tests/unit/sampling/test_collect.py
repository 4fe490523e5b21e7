from __future__ import annotations

import json

from swebench_trainer.contracts import Sample, SampleRequest
from swebench_trainer.sampling.collect import collect
from swebench_trainer.types import Candidate


class Writer:
    """Answers with the prompt."""

    def sample(self, requests):
        for request in requests:
            yield Sample(request.instance_id, request.sample, request.prompt)

    def close(self):
        pass


def candidate(sample):
    return Candidate(
        sample.instance_id, sample.sample, "m", sample.text, patch="", extraction="ok"
    )


def test_lone_surrogates_are_replaced_and_pairs_are_kept(tmp_path):
    """JSON can hold lone surrogates, which tokenizers and files reject."""
    texts = {"lone": "a\ud83d b", "halves": "a\ud83d\ude00 b", "whole": "a😀 b"}
    asked = [SampleRequest(n, 0, t, 9, 1.0, 1.0, 0) for n, t in texts.items()]
    path = tmp_path / "candidates.jsonl"
    found = collect(Writer, asked, candidate, path, lambda *_: None)
    assert [c.text for c in found] == ["a\ufffd b", "a😀 b", "a😀 b"]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["text"] for row in rows] == [c.text for c in found]
