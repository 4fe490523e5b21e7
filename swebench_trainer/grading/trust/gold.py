"""What the gold patch of an instance did on this machine, from the logs it left."""

from __future__ import annotations

from pathlib import Path

from swebench_trainer.contracts import GoldRun
from swebench_trainer.grading.official import TEST_LOG
from swebench_trainer.grading.sandbox import read_execution
from swebench_trainer.grading.trust.log_flags import Transcript, excused, failing
from swebench_trainer.types import Instance


def gold_run(instance: Instance, log_dir: Path) -> GoldRun | None:
    """The gold run whose logs lie in `log_dir`; `None` where it ran no tests.

    Of a run that did not pass nobody has looked at the files, so that no change of
    one is explained by it.
    """
    execution = read_execution(log_dir)
    if execution is None or not execution.tested:
        return None
    text = (log_dir / TEST_LOG).read_text(encoding="utf-8", errors="replace")
    log = Transcript(instance, text)
    evidence = execution.evidence
    return GoldRun(
        seconds=execution.seconds["test"],
        failed=failing(log),
        skipped=excused(log),
        changed=frozenset(evidence.changed if evidence else ()),
    )
