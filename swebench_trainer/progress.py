"""Progress of a run on the console: bars on a terminal, lines elsewhere.

The console is a plugin like any other and implements the lifecycle hooks.
"""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from swebench_trainer import events
from swebench_trainer.hookspecs import hookimpl


class RateColumn(ProgressColumn):
    """Items per second, or seconds per item when items are slow."""

    def render(self, task: Task) -> Text:
        """See `rich.progress.ProgressColumn.render`."""
        speed = task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each")


class ConsoleObserver:
    """Shows the events of a run on a console.

    On a terminal, each stage has a bar with its rate and remaining time. Elsewhere,
    it prints a line when a stage starts and ends, and at most one every `every`
    seconds in between.
    """

    def __init__(self, console: Console, *, every: float = 10.0) -> None:
        self._console = console
        self._every = every
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last_line = 0.0

    @hookimpl
    def run_started(self, event: events.RunStarted) -> None:
        """Prints the run directory."""
        again = f" (attempt {event.attempt})" if event.attempt > 1 else ""
        self._print(f"run {event.run_dir}{again}")

    @hookimpl
    def stage_started(self, event: events.StageStarted) -> None:
        """Opens the stage's bar."""
        self._last_line = time.monotonic()
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description:<9}"),
                BarColumn(),
                MofNCompleteColumn(),
                RateColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[detail]}", markup=False),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task(event.stage, total=None, detail="")
            self._bar.start()
        else:
            verb = "resumes" if event.resumed else "starts"
            self._print(f"{event.stage:<9} {verb}")

    @hookimpl
    def item_done(self, event: events.ItemDone) -> None:
        """Advances the bar, or prints a line if the last one is old enough."""
        if self._bar is not None and self._task is not None:
            if event.done < self._bar.tasks[0].completed:  # a new round starts
                self._bar.reset(self._task)
            self._bar.update(
                self._task,
                completed=event.done,
                total=event.total or None,
                detail=event.detail,
            )
        elif time.monotonic() - self._last_line >= self._every:
            self._last_line = time.monotonic()
            total = event.total or "?"
            latest = f", latest: {event.detail}" if event.detail else ""
            self._print(f"{event.stage:<9} {event.done}/{total}{latest}")

    @hookimpl
    def stage_finished(self, event: events.StageFinished) -> None:
        """Closes the bar and prints the stage's summary."""
        self._close_bar()
        summary = "  ".join(f"{key} {value}" for key, value in event.summary.items())
        took = "up to date" if event.skipped else f"{event.seconds:.1f} s"
        self._print(f"{event.stage:<9} {took:>11}  {summary}")

    @hookimpl
    def stage_failed(self, event: events.StageFailed) -> None:
        """Closes the bar; the command line prints the error."""
        self._close_bar()
        self._print(f"{event.stage:<9} {'stopped' if event.interrupted else 'failed'}")

    @hookimpl
    def run_finished(self, event: events.RunFinished) -> None:
        """Prints the total time."""
        self._print(f"done in {event.seconds:.0f} s")

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None
