"""Contract checks for backends: training, sampling, errors and Ctrl-C."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil

from swebench_trainer.contracts import (
    Backend,
    Sample,
    Sampler,
    SampleRequest,
    TokenView,
    TrainRequest,
)
from swebench_trainer.errors import (
    PluginError,
    PluginFault,
    PrerequisiteError,
    TrainerError,
)
from swebench_trainer.recipe.models import DpoTable, SftTable
from swebench_trainer.testing.assertions import as_assertions, as_in_runs
from swebench_trainer.testing.examples import (
    no_progress,
    some_pairs,
    some_requests,
    some_rows,
)

SFT = SftTable(learning_rate=1e-3, batch_size=2, save_every=0)
DPO = DpoTable(learning_rate=1e-3, batch_size=2, save_every=0)


def check_backend(
    backend: Backend,
    folder: Path,
    *,
    trains: bool = True,
    samples: bool = True,
    deterministic: bool = True,
) -> None:
    """Check a backend against its contract.

    Args:
        backend: A backend with a model that is small enough for a test.
        folder: An empty directory.
        trains: `False` for a backend that only samples.
        samples: `False` to test its sampler separately, with `check_sampling`.
        deterministic: `False` for a service that does not guarantee equal answers.
    """
    guarded = as_in_runs(backend, "backend")
    with as_assertions():
        backend.check()
        assert guarded.name, "a backend needs a name for predictions"
    if hasattr(backend, "open_view"):
        check_view(backend.open_view())
    if hasattr(backend, "open_counter"):
        count = backend.open_counter()
        longer = 0 < count("a") < count("a\n\nb = 1\n")
        assert longer, "longer prompts must have more tokens"
        assert getattr(backend, "tokenizer", ""), "a token counter names its tokenizer"
    trained: list[Path | None] = [None]
    if trains:
        trained += _check_training(guarded, folder)
    else:
        _check_refusals(guarded, folder)
    for weights in trained if samples else ():
        check_sampling(backend, weights, deterministic=deterministic)


def _check_training(guarded: Any, folder: Path) -> list[Path]:
    with as_assertions():
        weights = guarded.train_sft(some_rows(), SFT, _request(folder / "sft"))
        start = _request(folder / "dpo", start=weights)
        tuned = guarded.train_dpo(some_pairs(), DPO, start)
    assert weights.is_dir(), "training must not change the weights that it starts from"
    return [weights, tuned]


def _check_refusals(guarded: Any, folder: Path) -> None:
    wanted = "methods not offered must raise PluginError"
    request = _request(folder / "no")
    for train, examples, settings in (
        (guarded.train_sft, some_rows(), SFT),
        (guarded.train_dpo, some_pairs(), DPO),
    ):
        try:
            train(examples, settings, request)
        except PluginFault as error:
            raise AssertionError(wanted) from error
        except PluginError:
            continue
        raise AssertionError(wanted)


def check_training_resume(
    make: Callable[[], Backend],
    folder: Path,
    *,
    steps: int = 2,
    deterministic: bool = True,
) -> None:
    """Check that a training that was stopped by Ctrl-C resumes when called again.

    Args:
        make: Makes a new backend for each training, as a new process would.
        folder: An empty directory.
        steps: Number of steps before Ctrl-C; `save_every` is 1.
        deterministic: Whether an undisturbed training must give equal weights.
    """
    settings = SFT.model_copy(update={"save_every": 1})

    def train(out: Path, stop: int = 0) -> Path:
        def step(done: int, total: int, word: str) -> None:
            if stop and done >= stop:
                raise KeyboardInterrupt

        request = dataclasses.replace(_request(out), step=step)
        with as_assertions():
            guarded = as_in_runs(make(), "backend")
            weights: Path = guarded.train_sft(some_rows(), settings, request)
        return weights

    with suppress(KeyboardInterrupt):
        train(folder / "cut", steps)
        raise AssertionError(f"step() was not called for step {steps}, or lost Ctrl-C")
    found = _contents(train(folder / "cut"))
    if deterministic:
        whole = _contents(train(folder / "whole"))
        assert found == whole, "a resumed training ends with other weights"
        again = _contents(train(folder / "whole"))
        assert again == whole, "a finished training returns other weights when rerun"


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def check_view(view: Callable[[str, str | None], TokenView]) -> None:
    """Check the function that `TokenViewer.open_view` returns."""
    prompt, whole = view("Say 1.", None), view("Say 1.", "111")
    assert prompt.answer_tokens == 0 and whole.answer_tokens > 0
    assert prompt.prompt_tokens == whole.prompt_tokens > 0
    read = [part for part in whole.parts if not part.trained]
    assert read == list(prompt.parts), "the untrained part must be the prompt"
    assert whole.parts[: len(read)] == prompt.parts, "the answer must come last"
    learned = "".join(p.text for p in whole.parts if p.trained and not p.special)
    assert learned.strip() == "111", "the loss must be on the answer"
    assert not whole.altered


def check_sampling(
    backend: Backend, weights: Path | None, *, deterministic: bool = True
) -> None:
    """Check a backend's sampler against its contract.

    At any batch size each request gets at most one answer. If it is `deterministic`,
    equal requests get equal answers, in any order and in any batch. A second sampler
    can answer the requests that a first one left.
    """
    requests = some_requests()
    whole = _answers(backend, weights, requests, batch_size=4)
    one = _answers(backend, weights, requests, batch_size=1)
    rest = _answers(backend, weights, requests[:1:-1], batch_size=4)
    same = whole.keys() == one.keys()
    assert same, "the batch size must not change which requests are answered"
    same = rest.keys() == {_key(r) for r in requests[2:]} & whole.keys()
    assert same, "a second sampler must answer the remaining requests"
    if deterministic:
        assert whole == one, "equal seeds must give equal answers at any batch size"
        same = rest.items() <= whole.items()
        assert same, "equal seeds must give equal answers in any order and batch"


def check_cancellation(
    backend: Backend, weights: Path | None = None, *, within: float = 10.0
) -> None:
    """Check that closing a sampler midway frees its resources.

    Args:
        backend: A backend whose sampler answers `some_requests`.
        weights: Weights to open; `None` is the base model.
        within: Seconds until threads, processes and connections must be gone.
    """
    before = _Resources()
    sampler = backend.open_sampler(weights, batch_size=1)
    answers = iter(sampler.sample(some_requests()))
    assert isinstance(next(answers, None), Sample), "the first request got no answer"
    start = time.monotonic()
    if close := getattr(answers, "close", None):
        close()
    sampler.close()
    sampler.close()  # a stage that fails may close again
    assert time.monotonic() - start < within, "closing takes too long"
    before.assert_freed(within)
    again = _answers(backend, weights, some_requests(), batch_size=1)
    assert again, "another sampler must open after the first is closed"


def check_interrupt(
    backend: Backend,
    weights: Path | None = None,
    *,
    after: float = 0.3,
    within: float = 10.0,
) -> None:
    """Check that Ctrl-C, sent `after` some seconds, stops sampling.

    Call it from the main thread. The sampler's resources must be freed `within` seconds.
    """
    before = _Resources()
    sampler = backend.open_sampler(weights, batch_size=1)
    main = threading.main_thread().ident
    assert main == threading.get_ident(), "call this from the main thread"
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(after, signal.pthread_kill, (main, signal.SIGINT))
    deadline = time.monotonic() + after + within
    timer.start()
    try:
        with suppress(KeyboardInterrupt):
            while time.monotonic() < deadline:
                list(sampler.sample(some_requests()))
            raise AssertionError("the sampler swallows Ctrl-C")
    finally:
        timer.join()
        signal.signal(signal.SIGINT, old)
        sampler.close()
    assert time.monotonic() < deadline, "Ctrl-C takes too long"
    before.assert_freed(within)


def check_fault(
    backend: Backend, *, hint: bool = True, within: float = 60.0
) -> TrainerError:
    """Check that a backend reports a failing service as a `TrainerError`.

    Args:
        backend: A backend that cannot answer all of `some_requests`, for example with
            a wrong key, or a server that is down or sends garbage.
        hint: Whether the error must have a hint.
        within: Seconds until it must give up.

    Returns:
        The error, for further checks.
    """
    start = time.monotonic()
    found: TrainerError | None = None
    sampler: Sampler | None = None
    try:
        sampler = backend.open_sampler(None, batch_size=2)
        for sample in sampler.sample(some_requests()):
            assert isinstance(sample, Sample), f"{sample!r} is not a Sample"
    except PluginFault:
        raise
    except TrainerError as error:
        found = error
    except Exception as error:  # an SDK's error, which must not escape
        name = type(error).__name__
        raise AssertionError(f"the backend raises {name}, no TrainerError") from error
    finally:
        if sampler is not None:
            sampler.close()
    assert found is not None, "nothing was raised"
    assert found.message.strip(), "an error needs a message"
    assert found.hint or not hint, "an error needs a hint with the next step"
    assert time.monotonic() - start < within, "the backend gives up too late"
    return found


def check_missing_key(make: Callable[[], Backend], variable: str) -> None:
    """Check that `check()` names the environment variable without a key.

    Args:
        make: Makes the backend; called without the variable in the environment.
        variable: Name of the variable.
    """
    value = os.environ.pop(variable, None)
    try:
        make().check()
    except PrerequisiteError as error:
        assert variable in str(error), f"the error does not name {variable}"
    else:
        raise AssertionError(f"check() passes without {variable}")
    finally:
        if value is not None:
            os.environ[variable] = value


def _key(about: SampleRequest | Sample) -> tuple[str, int]:
    return about.instance_id, about.sample


def _answers(
    backend: Backend,
    weights: Path | None,
    requests: Sequence[SampleRequest],
    batch_size: int,
) -> dict[tuple[str, int], str]:
    """The text of each answer, checked as in a run."""
    guarded = as_in_runs(backend, "backend")
    with (
        as_assertions(),
        closing(guarded.open_sampler(weights, batch_size=batch_size)) as sampler,
    ):
        return {_key(s): s.text for s in sampler.sample(requests)}


def _request(out: Path, start: Path | None = None) -> TrainRequest:
    out.mkdir(parents=True, exist_ok=True)
    return TrainRequest(out, start, max_tokens=512, seed=0, step=no_progress)


class _Resources:
    """The threads, child processes and connections of this process."""

    def __init__(self) -> None:
        me = psutil.Process()
        self.threads = set(threading.enumerate())
        self.children = {child.pid for child in me.children(recursive=True)}
        self.connections = {
            (c.laddr, c.raddr) for c in me.net_connections(kind="inet") if c.raddr
        }

    def assert_freed(self, within: float) -> None:
        """Wait until all resources opened since then are freed."""
        deadline = time.monotonic() + within
        while True:
            now = _Resources()
            left = {
                "threads": [t.name for t in now.threads - self.threads],
                "processes": sorted(now.children - self.children),
                "connections": sorted(now.connections - self.connections),
            }
            if not any(left.values()):
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"a closed sampler still holds {left}")
            time.sleep(0.05)
