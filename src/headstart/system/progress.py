"""Progress and remarks on stderr; a progress bar (rich) only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Protocol

from headstart.errors import printable
from headstart.records import Images

__all__ = ["SILENT", "Progress", "Remarks", "terminal_progress", "throttled", "with_progress"]

_INTERVAL_S = 0.1


class Progress(Protocol):
    """Receives progress and remarks."""

    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` images of a task are done; ``note`` holds for instance loss and accuracy."""
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
    """Prints remarks to stderr, without a progress bar: for pipes and files."""

    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        """Do nothing."""

    def remark(self, text: str) -> None:
        """Print one line to stderr."""
        print(text, file=sys.stderr)


class _Bar:
    """A progress bar for each task, with note, images per second and time left."""

    def __init__(self, display: Any) -> None:
        self._display, self._task, self._name, self._done = display, None, "", 0

    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        """Update the bar; a task that starts again gets a new clock."""
        note = printable(note)
        if task != self._name or done < self._done:
            if self._task is not None:
                self._display.remove_task(self._task)
            self._task, self._name = self._display.add_task(task, total=total, note=note), task
        self._done = done
        self._display.update(self._task, completed=done, total=total, note=note)

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
        _speed_column(),
        note,
        TimeRemainingColumn(),
    )
    with Display(
        *columns, console=Console(file=getattr(sys.stderr, "raw", sys.stderr)), transient=True
    ) as display:
        yield _Bar(display)


def _speed_column() -> Any:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class _Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:,.0f} images/s")

    return _Speed()


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
