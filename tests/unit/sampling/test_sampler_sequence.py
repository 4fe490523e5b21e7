"""Several samplers in sequence, each with its own sample numbers."""

from swebench_trainer.contracts import Sample, SampleRequest
from swebench_trainer.sampling.collect import NamedSampler, SamplerSequence


class FakeSampler:
    opened = closed = 0

    def __init__(self, text, model=""):
        self.text, self.model = text, model

    def open(self):
        self.opened += 1
        return self

    def sample(self, requests):
        for request in requests:
            yield Sample(
                request.instance_id, request.sample, self.text, model=self.model
            )

    def close(self):
        self.closed += 1


def requests(*samples):
    return [SampleRequest("i", n, "p", 9, 1.0, 1.0, n) for n in samples]


def test_each_sampler_answers_its_own_sample_numbers():
    samplers = [FakeSampler("a"), FakeSampler("b"), FakeSampler("c", model="c itself")]
    sequence = SamplerSequence(
        [NamedSampler(v.text * 3, v.open) for v in samplers], share=2
    )
    found = {s.sample: (s.text, s.model) for s in sequence.sample(requests(*range(6)))}
    assert found == {
        0: ("a", "aaa"),
        1: ("a", "aaa"),
        2: ("b", "bbb"),
        3: ("b", "bbb"),
        4: ("c", "c itself"),
        5: ("c", "c itself"),
    }
    assert all(v.opened == v.closed == 1 for v in samplers)


def test_a_sampler_without_requests_is_not_opened():
    first, second = FakeSampler("a"), FakeSampler("b")
    sequence = SamplerSequence(
        [NamedSampler("a", first.open), NamedSampler("b", second.open)], share=4
    )
    assert [s.text for s in sequence.sample(requests(6))] == ["b"]
    assert (first.opened, second.opened) == (0, 1)
