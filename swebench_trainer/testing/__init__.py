"""Testing tools for plugin authors: contract suites, whole runs, and working fakes.

Each `check_…` function checks an implementation against its contract and raises an
`AssertionError` that names the violation. Call them from your own tests:

    from swebench_trainer.testing import check_backend

    def test_contract(tmp_path):
        check_backend(MyBackend(table), tmp_path)

The fixture `trainer` makes whole runs. Enable it in your `conftest.py`:

    pytest_plugins = ["swebench_trainer.testing.fixtures"]

The fakes do the real work on a small scale; they are not mocks.
"""

from __future__ import annotations

from swebench_trainer.testing.backends import (
    check_backend,
    check_cancellation,
    check_fault,
    check_interrupt,
    check_missing_key,
    check_sampling,
    check_training_resume,
    check_view,
)
from swebench_trainer.testing.examples import (
    PATCH,
    a_graded_instance,
    an_instance,
    an_ungraded_instance,
    some_pairs,
    some_requests,
    some_rows,
)
from swebench_trainer.testing.fakes import (
    FakeBackend,
    FakeGrader,
    FakeSampler,
    FakeSource,
)
from swebench_trainer.testing.imports import HEAVY, assert_light_import
from swebench_trainer.testing.runs import (
    DEFAULTS,
    LIFECYCLE,
    Heard,
    HookRecorder,
    Run,
    Trainer,
    assert_no_secrets,
    check_resume,
)
from swebench_trainer.testing.served import served_model
from swebench_trainer.testing.suites import (
    check_grader,
    check_pair_strategy,
    check_prompt_style,
    check_publisher,
    check_source,
)

__all__ = [
    "DEFAULTS",
    "HEAVY",
    "LIFECYCLE",
    "PATCH",
    "FakeBackend",
    "FakeGrader",
    "FakeSampler",
    "FakeSource",
    "Heard",
    "HookRecorder",
    "Run",
    "Trainer",
    "a_graded_instance",
    "an_instance",
    "an_ungraded_instance",
    "assert_light_import",
    "assert_no_secrets",
    "check_backend",
    "check_cancellation",
    "check_fault",
    "check_grader",
    "check_interrupt",
    "check_missing_key",
    "check_pair_strategy",
    "check_prompt_style",
    "check_publisher",
    "check_resume",
    "check_sampling",
    "check_source",
    "check_training_resume",
    "check_view",
    "served_model",
    "some_pairs",
    "some_requests",
    "some_rows",
]
