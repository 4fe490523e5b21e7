"""The gold run of an instance on this machine, read from its logs."""

from __future__ import annotations

from pathlib import Path

from swebench_trainer.contracts import GoldRun
from swebench_trainer.grading.official import TEST_LOG
from swebench_trainer.grading.sandbox import read_execution
from swebench_trainer.grading.trust.log_flags import Transcript, excused, failing
from swebench_trainer.types import Instance


def gold_run(instance: Instance, log_dir: Path) -> GoldRun | None:
    """The gold run with logs in `log_dir`; `None` if it ran no tests.

    The sandbox of a run that did not pass was not inspected, so such a run does not
    explain any changed files.
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
