"""Progress and remarks on stderr: a bar (rich) on a terminal, else a line now and then."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import perf_counter
from typing import Any, Protocol

from headstart.errors import printable
from headstart.records import Images

__all__ = ["SILENT", "Progress", "Remarks", "terminal_progress", "throttled", "with_progress"]

_INTERVAL_S = 0.1
_MANY = 2_000  # images; tasks with fewer get no lines in a pipe
_PAUSE_S, _LONGEST_PAUSE_S = 10.0, 300.0  # between two lines in a pipe


class Progress(Protocol):
    """Receives progress and remarks."""

    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` images of a task are done; ``note`` holds for instance loss and accuracy.

        A ``total`` of 0 begins a task without a count.
        """
        ...

    def remark(self, text: str) -> None:
        """Show a sentence that stays on the screen."""
        ...


class _Silent:
    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        """Do nothing."""

    def remark(self, text: str) -> None:
        """Do nothing."""


SILENT: Progress = _Silent()


class Remarks:
    """Prints remarks to stderr, for pipes and files; of long tasks with many images a line now and then."""

    def __init__(self) -> None:
        self._said, self._pause_s = perf_counter(), _PAUSE_S
        self._task, self._begun, self._first = "", 0.0, 0

    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        """Print how far a task is, after 10 seconds, then 20, and so on up to 5 minutes."""
        now = perf_counter()
        if task != self._task or done < self._first:
            self._task, self._begun, self._first = task, now, done
        if total >= _MANY and now - self._said >= self._pause_s:
            self._said, self._pause_s = now, min(2 * self._pause_s, _LONGEST_PAUSE_S)
            self.remark(f"headstart: {printable(task)}: {self._how_far(done, total, now - self._begun)}")

    def remark(self, text: str) -> None:
        """Print one line to stderr."""
        print(text, file=sys.stderr, flush=True)

    def _how_far(self, done: int, total: int, elapsed_s: float) -> str:
        speed = (done - self._first) / elapsed_s if elapsed_s > 0 else 0.0
        if not speed:
            return f"{done:,} of {total:,}"
        left = timedelta(seconds=round((total - done) / speed))
        return f"{done:,} of {total:,}, {speed:,.{0 if speed >= 10 else 1}f} images/s, {left} left"


class _Bar:
    """A progress bar for each task, with its count, note, images per second and time left."""

    def __init__(self, display: Any) -> None:
        self._display, self._task, self._name, self._done = display, None, "", 0

    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        """Update the bar; a task that starts again gets a new clock."""
        note = printable(note)
        if task != self._name or done < self._done:
            if self._task is not None:
                self._display.remove_task(self._task)
            self._task, self._name = self._display.add_task(task, total=total or None, note=note), task
        self._done = done
        self._display.update(self._task, completed=done, total=total or None, note=note)

    def remark(self, text: str) -> None:
        self._display.console.print(printable(text, keep="\n"), highlight=False, markup=False, soft_wrap=True)


@contextmanager
def terminal_progress(enabled: bool = True) -> Iterator[Progress]:
    """A progress bar if stderr is a terminal, else remarks only."""
    if not enabled or not sys.stderr.isatty():
        yield Remarks()
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Display

    note = TextColumn("{task.fields[note]}", markup=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        *_own_columns(),
        note,
        TimeRemainingColumn(),
    )
    with Display(
        *columns, console=Console(file=getattr(sys.stderr, "raw", sys.stderr)), transient=True
    ) as display:
        yield _Bar(display)


def _own_columns() -> tuple[Any, Any]:
    """How many images are done of how many, and how many a second."""
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class _Count(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.total is None else f"{task.completed:,.0f} of {task.total:,.0f}")

    class _Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if not task.speed or task.total is None else f"{task.speed:,.0f} images/s")

    return _Count(), _Speed()


def throttled(progress: Progress) -> Callable[[str, int, int], None]:
    """``step`` of a progress, at most ten times a second; the last step of a task is always reported."""
    last = 0.0

    def step(task: str, done: int, total: int) -> None:
        nonlocal last
        now = perf_counter()
        if now - last > _INTERVAL_S or done == total:
            progress.step(task, done, total)
            last = now

    return step


def with_progress(
    stream: Iterator[Images], total: int, task: str, progress: Progress, done: int = 0
) -> Iterator[Images]:
    """Pass batches on and report progress at most ten times a second; ``done`` images were done earlier."""
    step = throttled(progress)
    for batch in stream:
        yield batch
        done += len(batch)
        step(task, done, total)
