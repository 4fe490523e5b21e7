"""Small example values for tests."""

from __future__ import annotations

import dataclasses

from swebench_trainer.contracts import GradedInstance, SampleRequest
from swebench_trainer.types import (
    FLAKY,
    AnswerRef,
    Candidate,
    Extraction,
    ExtractionOutcome,
    Instance,
    Pair,
    SftRow,
    Status,
    Tier,
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
    """A small instance."""
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


def a_graded_instance(number: int = 1) -> GradedInstance:
    """An instance with a candidate for each result of grading.

    The texts name the results: `pass 1`, `fail 1`, `broken 1` (does not apply),
    `masked 1` (infrastructure error), `flagged 1` (an untrusted pass) and `flaky 1` (a
    failure that another run contradicts); `gold 1` is the gold answer.
    """
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


def an_ungraded_instance(number: int = 1) -> GradedInstance:
    """An instance with ungraded candidates, as with `graded = false`.

    The texts name the candidates: `guess 1` and `guess 1 again` (patches that differ
    from gold, each may be right), `repeat 1` (gold's patch) and `nothing 1` (no patch);
    `gold 1` is the gold answer.
    """
    instance = an_instance(number)
    found = Extraction()
    missing = Extraction(ExtractionOutcome.NO_CHANGE, reason="no answer")
    written = [
        (f"guess {number}", f"diff {number}", found),
        (f"guess {number} again", f"diff {number} again", found),
        (f"repeat {number}", instance.patch, found),
        (f"nothing {number}", "", missing),
    ]
    candidates = tuple(
        Candidate(instance.instance_id, sample, "m", text, patch, extraction)
        for sample, (text, patch, extraction) in enumerate(written)
    )
    return GradedInstance(
        instance, f"prompt {number}", f"gold {number}", graded=(), ungraded=candidates
    )


def some_requests(issues: int = 3, samples: int = 2) -> list[SampleRequest]:
    """Requests for short answers, each with its own seed."""
    return [
        SampleRequest(f"i-{n}", sample, f"Say {n}.", 8, 1.0, 1.0, seed=10 * n + sample)
        for n in range(issues)
        for sample in range(samples)
    ]


def some_rows() -> list[SftRow]:
    """Rows to train on."""
    return [SftRow(f"i-{n}", f"Say {n}.", f"{n}{n}{n}") for n in range(4)]


def some_pairs() -> list[Pair]:
    """Pairs to train on, with the prompts of `some_rows`."""
    gold, first = AnswerRef.gold(), AnswerRef.of_sample(0)
    return [
        Pair(
            r.instance_id, r.prompt, r.completion, "no", "test", gold, first, Tier.FAILS
        )
        for r in some_rows()
    ]


def no_progress(done: int, total: int, word: str) -> None:
    """A `TrainRequest.step` that does nothing."""
