"""The kit for plugin authors: contract suites, and fakes that behave.

Each `check_…` function holds an implementation to its contract and raises an
`AssertionError` that says what it broke. Call them from your own tests:

    def test_contract(tmp_path):
        check_backend(MyBackend(table), tmp_path)

The fakes do what the real things do on a small scale; they are no mocks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from swebench_trainer.contents.directory import Directory
from swebench_trainer.contracts import (
    Backend,
    GradedInstance,
    GradeJob,
    Grader,
    Material,
    Outcome,
    PairStrategy,
    PromptStyle,
    Publisher,
    SampleRequest,
    Source,
    TokenView,
    TrainRequest,
)
from swebench_trainer.errors import PluginError
from swebench_trainer.recipe.models import DpoTable, SftTable
from swebench_trainer.types import (
    FLAKY,
    Candidate,
    Instance,
    Pair,
    SftRow,
    Status,
    Verdict,
)

PATCH = """\
diff --git a/greet.py b/greet.py
--- a/greet.py
+++ b/greet.py
@@ -1,2 +1,2 @@
 def greet(name):
-    return "Hello " + name
+    return f"Hello, {name}!"
"""


def an_instance(number: int = 1, **changes: object) -> Instance:
    """A small instance to try things on."""
    instance = Instance(
        instance_id=f"example__greet-{number}",
        repo="example/greet",
        base_commit="0" * 40,
        problem_statement=f"Greeting {number} lacks its punctuation.",
        patch=PATCH,
        image="example/greet:1",
        eval_script="#!/bin/bash\ntrue\n",
        log_parser="parse_log_pytest",
        FAIL_TO_PASS=("test_greet",),
    )
    return dataclasses.replace(instance, **changes)  # type: ignore[arg-type]  # fields by name


class FakeGrader:
    """Resolves what changes the same lines as gold; the rest applies and fails.

    A patch that does not start with `diff` does not apply. With `faults`, the
    first so many jobs end in `infra_error`.
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
            return Outcome(Status.NOT_APPLIED, {}, reason="no diff")
        resolved = _changes(patch) == _changes(job.instance.patch)
        status = Status.RESOLVED if resolved else Status.UNRESOLVED
        return Outcome(status, {"resolved": resolved})

    def close(self) -> None:
        """See `Grader.close`."""


def _changes(patch: str) -> list[str]:
    return [line for line in patch.splitlines() if line[:1] in ("+", "-")]


def check_source(make: Callable[[], Source]) -> None:
    """Holds a source to its contract. `make` opens it on the same data each time."""
    first, second = make().load(), make().load()
    assert first == second, "load() must give the same instances each time"
    ids = [i.instance_id for i in first.instances]
    assert ids, "the example data must hold an instance"
    assert len(ids) == len(set(ids)), "instance ids must be unique"
    assert make().digest() == make().digest(), "digest() must not change by itself"
    assert all(reason for _, reason in first.dropped), "every drop needs a reason"


def check_prompt_style(style: PromptStyle, instance: Instance) -> None:
    """Holds a prompt style to its contract."""
    material = Material(lambda: Directory(instance.snapshot), tokens=len)
    prompt = style.render(instance, material)
    again = style.render(instance, material)
    assert prompt == again, "render() must be deterministic"
    assert instance.problem_statement in prompt.text, "the prompt must hold the issue"
    assert instance.patch not in prompt.text, "the prompt must not hold the gold patch"
    for path, ranges in (prompt.shown or {}).items():
        lines = (material.tree().read(path) or b"").decode().split("\n")
        for shown in ranges:
            text = "\n".join(lines[shown.start : shown.stop])
            assert text in prompt.text, f"what is shown of {path} must be in the prompt"
    assert getattr(style, "context", "a name"), "a context has a name"


def check_backend(backend: Backend, folder: Path, *, trains: bool = True) -> None:
    """Holds a backend to its contract.

    Args:
        backend: A backend on a model that is small enough for a test.
        folder: An empty directory.
        trains: `False` for a backend that only samples.
    """
    backend.check()
    assert backend.name, "a backend has a name for predictions"
    rows = [SftRow(f"i-{n}", f"Say {n}.", f"{n}{n}{n}") for n in range(4)]
    pairs = [
        Pair(
            row.instance_id, row.prompt, row.completion, "no", "test",
            chosen_source="gold", rejected_source="sample:0", tier=Status.UNRESOLVED,
        )
        for row in rows
    ]  # fmt: skip
    if hasattr(backend, "open_view"):
        check_view(backend.open_view())
    if hasattr(backend, "open_counter"):
        count = backend.open_counter()
        assert 0 < count("a") < count("a\n\nb = 1\n"), "longer prompts count more"
        assert getattr(backend, "tokenizer", ""), "what counts has a name"
    sft = DpoTable(learning_rate=1e-3, batch_size=2, save_every=0)
    if not trains:
        for train in (
            lambda: backend.train_sft(rows, SftTable(), _request(folder / "no")),
            lambda: backend.train_dpo(pairs, sft, _request(folder / "no")),
        ):
            _assert_refuses(train)
        return
    settings = SftTable(learning_rate=1e-3, batch_size=2, save_every=0)
    weights = backend.train_sft(rows, settings, _request(folder / "sft"))
    assert weights.is_dir(), "train_sft returns the directory of the weights"
    assert weights.parent == folder / "sft", "weights belong into request.out"
    tuned = backend.train_dpo(pairs, sft, _request(folder / "dpo", start=weights))
    assert tuned.parent == folder / "dpo", "weights belong into request.out"
    for trained in (None, weights, tuned):
        check_sampling(backend, trained)


def check_view(view: Callable[[str, str | None], TokenView]) -> None:
    """Holds what a `TokenViewer` opens to its contract."""
    asked, whole = view("Say 1.", None), view("Say 1.", "111")
    assert asked.answer_tokens == 0 and whole.answer_tokens > 0
    assert asked.prompt_tokens == whole.prompt_tokens > 0
    read = [part for part in whole.parts if not part.trained]
    assert read == list(asked.parts), "training begins with what is asked"
    assert whole.parts[: len(read)] == asked.parts, "the answer comes last"
    learned = "".join(p.text for p in whole.parts if p.trained and not p.special)
    assert learned.strip() == "111", "the loss is on the answer"
    assert not whole.altered


def _request(out: Path, start: Path | None = None) -> TrainRequest:
    out.mkdir(parents=True, exist_ok=True)
    return TrainRequest(
        out, start, max_tokens=512, seed=0, step=lambda done, total, word: None
    )


def _assert_refuses(call: Callable[[], object]) -> None:
    try:
        call()
    except PluginError:
        return
    raise AssertionError("what a backend does not offer raises PluginError")


def check_sampling(backend: Backend, weights: Path | None) -> None:
    """Holds a backend's sampler to its contract."""
    requests = [
        SampleRequest(
            f"i-{n}", sample, f"Say {n}.", max_new_tokens=8,
            temperature=1.0, top_p=1.0, seed=10 * n + sample,
        )
        for n in range(3)
        for sample in range(2)
    ]  # fmt: skip
    found = []
    for batch_size in (4, 1):
        sampler = backend.open_sampler(weights, batch_size=batch_size)
        try:
            answers = {(s.instance_id, s.sample): s for s in sampler.sample(requests)}
        finally:
            sampler.close()
        assert set(answers) <= {(r.instance_id, r.sample) for r in requests}, (
            "a sampler answers only what it is asked"
        )
        found.append({key: answer.text for key, answer in answers.items()})
    assert found[0] == found[1], "equal seeds give equal answers at any batch size"


def check_grader(grader: Grader, instance: Instance, folder: Path) -> None:
    """Holds a grader to its contract, on an instance that it can grade."""
    gold = Candidate(instance.instance_id, 0, "gold", text="", patch=instance.patch)
    wrong = dataclasses.replace(gold, sample=1, patch="this is no patch\n")
    jobs = [
        GradeJob(instance, candidate, folder / str(candidate.sample))
        for candidate in (gold, wrong)
    ]
    try:
        grader.check([instance])
        found = {job.candidate.sample: o.status for job, o in grader.grade(jobs)}
    finally:
        grader.close()
    assert found == {0: Status.RESOLVED, 1: Status.NOT_APPLIED}, found


def check_pair_strategy(strategy: PairStrategy, *, one_sided: bool = False) -> None:
    """Holds a pair strategy to its contract.

    Args:
        strategy: A strategy.
        one_sided: Whether its table says that answers may stand alone.
    """
    graded = [_graded(n) for n in range(3)]
    pairs = list(strategy.pairs(graded))
    assert pairs == list(strategy.pairs(graded)), "pairs() must be deterministic"
    doubtful = ("masked", "flagged", "flaky")
    masked = {f"{word} {n}" for word in doubtful for n in range(3)}
    for pair in pairs:
        assert pair.chosen != pair.rejected, "chosen and rejected must differ"
        paired = pair.chosen is not None and pair.rejected is not None
        assert paired or one_sided, "an answer stands alone, and the table denies it"
        assert pair.chosen not in masked, "a masked or flagged candidate was chosen"
        assert pair.rejected not in masked, "a masked or flaky candidate was rejected"
        failed = pair.rejected is None or not pair.rejected.startswith("pass")
        assert failed, "a passing candidate was rejected"
        assert pair.strategy, "a pair says which strategy made it"
    assert not list(strategy.pairs([])), "no instances, no pairs"


def _graded(number: int) -> GradedInstance:
    instance = an_instance(number)
    ends = [
        (f"pass {number}", Status.RESOLVED, ()),
        (f"fail {number}", Status.UNRESOLVED, ()),
        (f"broken {number}", Status.NOT_APPLIED, ()),
        (f"masked {number}", Status.INFRA_ERROR, ()),
        (f"flagged {number}", Status.RESOLVED, ("multi_marker",)),
        (f"flaky {number}", Status.UNRESOLVED, (FLAKY,)),
    ]
    graded = tuple(
        (
            Candidate(instance.instance_id, sample, "m", text, f"diff {text}"),
            Verdict(instance.instance_id, sample, "m", status, flags=flags),
        )
        for sample, (text, status, flags) in enumerate(ends)
    )
    return GradedInstance(instance, f"prompt {number}", f"gold {number}", graded)


def check_publisher(publisher: Publisher, folder: Path) -> None:
    """Holds a publisher to its contract; `folder` is an empty directory."""
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_text("made by swebench-trainer\n")
    publisher.check()
    assert publisher.publish(folder), "publish() says where the release is now"
    assert (folder / "README.md").exists(), "publish() leaves the release as it was"
