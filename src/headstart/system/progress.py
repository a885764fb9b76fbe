"""How long things take, told on stderr and only to a terminal.

In: counts. Out: a moving line. Owns rich's progress; imports it only when a terminal is there.
Called by the command line, which hands it down as a Progress.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Protocol

from headstart.records import Images

__all__ = ["SILENT", "Progress", "Remarks", "terminal_progress", "told"]

_INTERVAL_S = 0.1


class Progress(Protocol):
    """Told what is being done; a remark is a sentence worth keeping."""

    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` images of a task, with a note such as loss and accuracy."""
        ...

    def remark(self, text: str) -> None:
        """Say something that stays on the screen."""
        ...


class _Silent:
    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        """Say nothing."""

    def remark(self, text: str) -> None:
        """Say nothing."""


SILENT: Progress = _Silent()


class Remarks:
    """Remarks to stderr, no moving line: for pipes and files."""

    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        """Nothing moves in a file."""

    def remark(self, text: str) -> None:
        """One line on stderr."""
        print(text, file=sys.stderr)


class _Bar:
    """One line per task: bar, note, images per second, time left."""

    def __init__(self, display: Any) -> None:
        self._display, self._task, self._name, self._done = display, None, "", 0

    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        """Move the line; a task that starts again starts a new clock."""
        if task != self._name or done < self._done:
            if self._task is not None:
                self._display.remove_task(self._task)
            self._task, self._name = self._display.add_task(task, total=total, note=note), task
        self._done = done
        self._display.update(self._task, completed=done, total=total, note=note)

    def remark(self, text: str) -> None:
        """A line above the moving one."""
        self._display.console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def terminal_progress(enabled: bool = True) -> Iterator[Progress]:
    """A moving line if stderr is a terminal, else remarks only."""
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
    with Display(*columns, console=Console(stderr=True), transient=True) as display:
        yield _Bar(display)


def _speed_column() -> Any:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class _Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:,.0f} images/s")

    return _Speed()


def told(
    stream: Iterator[Images], total: int, task: str, progress: Progress, done: int = 0
) -> Iterator[Images]:
    """The same batches, with progress at most ten times a second.

    Parameters
    ----------
    stream : iterator of ndarray
        Batches of images.
    total : int
        Images in all of them.
    task : str
        What is being done, for the display.
    progress : Progress
        Who is told.
    done : int, default=0
        Images done by an earlier run.

    Yields
    ------
    ndarray
        Each batch as it came; it counts as done when the next is asked for.
    """
    last = 0.0
    for batch in stream:
        yield batch
        done += len(batch)
        now = perf_counter()
        if now - last > _INTERVAL_S or done == total:
            progress.step(task, done, total)
            last = now
