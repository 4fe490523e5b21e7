"""The suites for backends hold: each is passed by a good one and failed by a bad one."""

import contextlib
import dataclasses
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from swebench_trainer.contracts import Sample
from swebench_trainer.errors import PluginError, PrerequisiteError, TrainerError
from swebench_trainer.testing import (
    FakeBackend,
    check_backend,
    check_cancellation,
    check_fault,
    check_interrupt,
    check_missing_key,
    check_sampling,
    check_training_resume,
)


class Writer:
    """A backend that only samples, as each test wants it to."""

    name = "writer"

    def __init__(self, sample=None, close=lambda: None):
        self._sample = sample or (lambda requests: map(answer, requests))
        self._close = close

    def check(self):
        pass

    def open_sampler(self, weights, *, batch_size):
        writer = self

        class Sampler:
            def sample(self, requests):
                return writer._sample(requests)

            def close(self):
                writer._close()

        return Sampler()


def answer(request, text=None):
    text = f"{request.prompt} {request.seed}" if text is None else text
    return Sample(request.instance_id, request.sample, text)


def test_the_fake_passes(tmp_path):
    check_backend(FakeBackend(), tmp_path)
    check_cancellation(FakeBackend())
    check_interrupt(FakeBackend())


def test_a_training_that_is_stopped_ends_as_one_that_was_not(tmp_path):
    check_training_resume(FakeBackend, tmp_path / "good")

    class Forgets(FakeBackend):
        """Takes what is left of an earlier training for the whole of it."""

        def train_sft(self, rows, settings, request):
            notes = request.out / "notes"
            left = rows[notes.read_text().count("x") :] if notes.exists() else rows
            tell = request.step

            def step(done, total, word):
                notes.write_text("x" * done)
                tell(done, total, word)

            request = dataclasses.replace(request, step=step)
            return super().train_sft(left, settings, request)

    with pytest.raises(AssertionError, match="ends with other weights"):
        check_training_resume(Forgets, tmp_path / "bad")

    class Silent(FakeBackend):
        def train_sft(self, rows, settings, request):
            request = dataclasses.replace(request, step=lambda *_: None)
            return super().train_sft(rows, settings, request)

    with pytest.raises(AssertionError, match="was not called for step 2"):
        check_training_resume(Silent, tmp_path / "silent")


def test_a_backend_that_only_samples_needs_no_training_methods(tmp_path):
    check_backend(Writer(), tmp_path, trains=False)


def test_a_backend_that_fails_where_it_offers_nothing(tmp_path):
    class Clumsy(Writer):
        def train_sft(self, rows, settings, request):
            raise NotImplementedError  # not the PluginError that the contract wants

    with pytest.raises(AssertionError, match="must raise PluginError"):
        check_backend(Clumsy(), tmp_path, trains=False)


def test_weights_that_no_stage_would_find(tmp_path):
    class Astray(FakeBackend):
        def train_sft(self, rows, settings, request):
            return super().train_sft(rows, settings, request).rename(tmp_path / "else")

    with pytest.raises(AssertionError, match="weights belong in"):
        check_backend(Astray(), tmp_path)


drawn = iter(range(1000))

BAD = {
    "equal seeds": lambda rs: (answer(r, str(next(drawn))) for r in rs),
    "any order and batch": lambda rs: (
        answer(r, str(n if len(rs) < 6 else 0)) for n, r in enumerate(rs)
    ),
    "twice": lambda rs: (answer(r) for r in [rs[0], *rs]),
    "not requested": lambda rs: iter([Sample("else", 0, "text")]),
    "not a Sample": lambda rs: iter(["text"]),
    "wrong text": lambda rs: (Sample(r.instance_id, r.sample, None) for r in rs),
    "a NoneType": lambda rs: None,
    "KeyError": lambda rs: {}["fuel"],
}


@pytest.mark.parametrize("complaint", BAD)
def test_a_sampler_that_breaks_the_contract_fails(complaint):
    if complaint == "a NoneType":
        complaint, sample = "'NoneType' object is not iterable", BAD["a NoneType"]
    else:
        sample = BAD[complaint]
    with pytest.raises(AssertionError, match=complaint):
        check_sampling(Writer(sample), None)


def test_a_service_may_answer_differently_each_time(tmp_path):
    writer = Writer(BAD["equal seeds"])
    check_backend(writer, tmp_path, trains=False, deterministic=False)


def test_a_sampler_that_keeps_a_thread_or_a_connection_fails():
    stop = threading.Event()

    def with_a_thread(requests):
        threading.Thread(target=stop.wait, name="forgotten").start()
        yield from map(answer, requests)

    try:
        with pytest.raises(AssertionError, match="forgotten"):
            check_cancellation(Writer(with_a_thread), within=0.2)
    finally:
        stop.set()

    held = []

    def with_a_connection(requests):
        held.append(socket.create_connection(server.getsockname()))
        yield from map(answer, requests)

    with socket.create_server(("127.0.0.1", 0)) as server:
        try:
            with pytest.raises(AssertionError, match="connections"):
                check_cancellation(Writer(with_a_connection), within=0.2)
        finally:
            held[0].close()


def test_a_sampler_that_cannot_be_closed_twice_fails():
    left = [1]
    with pytest.raises(IndexError):
        check_cancellation(Writer(close=left.pop))


def test_a_sampler_that_swallows_ctrl_c_fails():
    def deaf(requests):
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(0.3)
        yield from map(answer, requests)

    with pytest.raises(AssertionError, match="swallows"):
        check_interrupt(Writer(deaf), after=0.1, within=0.4)


def test_ctrl_c_ends_a_sampler_that_waits():
    def slow(requests):
        time.sleep(60)
        yield from map(answer, requests)

    check_interrupt(Writer(slow), after=0.1)


def fails(error):
    def sample(requests):
        yield answer(requests[0])
        raise error

    return Writer(sample)


def test_faults_come_as_our_errors_with_a_next_step():
    error = TrainerError("The server is gone.", hint="Start it again.")
    assert check_fault(fails(error)) is error
    with pytest.raises(AssertionError, match="next step"):
        check_fault(fails(TrainerError("Gone.")))
    assert check_fault(fails(TrainerError("Gone.")), hint=False)
    with pytest.raises(AssertionError, match="raises ConnectionError"):
        check_fault(fails(ConnectionError("reset")))
    with pytest.raises(AssertionError, match="nothing was raised"):
        check_fault(Writer())


def test_a_missing_key_is_named(monkeypatch):
    class Keyed(Writer):
        def check(self):
            if "A_KEY" not in os.environ:
                raise PrerequisiteError("No key.", hint="export A_KEY=…")

    monkeypatch.setenv("A_KEY", "a secret")
    check_missing_key(Keyed, "A_KEY")
    assert os.environ["A_KEY"] == "a secret"
    with pytest.raises(AssertionError, match="passes without B_KEY"):
        check_missing_key(Keyed, "B_KEY")
    with pytest.raises(AssertionError, match="passes without A_KEY"):
        check_missing_key(Writer, "A_KEY")


def test_what_is_not_offered_is_a_plugin_error(tmp_path: Path):
    class Refuses(Writer):
        def train_sft(self, rows, settings, request):
            raise PluginError("It only samples.")

        train_dpo = train_sft

    check_backend(Refuses(), tmp_path, trains=False)
