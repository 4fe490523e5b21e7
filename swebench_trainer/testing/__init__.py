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

from swebench_trainer.testing.assertions import (
    HEAVY as HEAVY,
    assert_light_import as assert_light_import,
)
from swebench_trainer.testing.backends import (
    check_backend as check_backend,
    check_cancellation as check_cancellation,
    check_fault as check_fault,
    check_interrupt as check_interrupt,
    check_missing_key as check_missing_key,
    check_sampling as check_sampling,
    check_training_resume as check_training_resume,
    check_view as check_view,
)
from swebench_trainer.testing.examples import (
    PATCH as PATCH,
    a_graded_instance as a_graded_instance,
    an_instance as an_instance,
    an_ungraded_instance as an_ungraded_instance,
    some_pairs as some_pairs,
    some_requests as some_requests,
    some_rows as some_rows,
)
from swebench_trainer.testing.fakes import (
    FakeBackend as FakeBackend,
    FakeGrader as FakeGrader,
    FakeSampler as FakeSampler,
    FakeSource as FakeSource,
)
from swebench_trainer.testing.runs import (
    DEFAULTS as DEFAULTS,
    LIFECYCLE as LIFECYCLE,
    Heard as Heard,
    HookRecorder as HookRecorder,
    Run as Run,
    Trainer as Trainer,
    assert_no_secrets as assert_no_secrets,
    check_resume as check_resume,
)
from swebench_trainer.testing.served import served_model as served_model
from swebench_trainer.testing.suites import (
    check_grader as check_grader,
    check_pair_strategy as check_pair_strategy,
    check_prompt_style as check_prompt_style,
    check_publisher as check_publisher,
    check_source as check_source,
)
