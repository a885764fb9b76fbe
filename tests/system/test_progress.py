"""Progress: a moving line on a terminal, nothing but remarks in a pipe."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest

from command import pieces
from headstart.system.progress import SILENT, Remarks, terminal_progress, with_progress

STEPS = """
import time
from headstart.system.progress import terminal_progress
with terminal_progress() as progress:
    for epoch in range(2):
        for done in range(1, 9):
            progress.step("train [cnn]", 100 * done, 800, f"loss [{epoch}.{done}]")
            time.sleep(0.05)
    progress.remark("a [red]remark[/red] that stays")
    progress.step("features of [x]", 5, 10)
"""


def on_a_terminal(code: str) -> tuple[int, str]:
    """Exit status, and what a terminal on standard error was sent."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "110", "LINES": "30"}
    with subprocess.Popen(
        [sys.executable, "-c", code], stderr=theirs, stdout=subprocess.PIPE, env=env
    ) as begun:
        os.close(theirs)
        said = b"".join(pieces(ours))
        out, _ = begun.communicate()
    os.close(ours)
    assert out == b""  # results are for standard output, and this is none
    return begun.returncode, said.decode()


def test_a_terminal_is_shown_a_bar_with_note_speed_and_time_left() -> None:
    code, said = on_a_terminal(STEPS)
    assert code == 0, said
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said)
    assert re.search(r"train \[cnn\] ━+\S* \d+ of 800 [\d,]+ images/s loss \[0\.\d\] 0:00:0\d", plain), plain
    assert "━" in plain and "features of [x]" in plain
    assert "a [red]remark[/red] that stays" in plain


def test_a_task_that_starts_again_starts_a_new_clock() -> None:
    _, said = on_a_terminal(STEPS)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said)
    left = re.findall(r"loss \[1\.\d\] (\S+)", plain)
    # in the second epoch time is left again, where a finished task would say 0:00:00 throughout
    assert any(one not in ("0:00:00", "-:--:--") for one in left[:-1]), left


def test_the_moving_line_is_gone_at_the_end() -> None:
    _, said = on_a_terminal(STEPS)
    assert said.rstrip().endswith("\x1b[2K") or said.rindex("\x1b[2K") > said.rindex("features")


@pytest.mark.parametrize("enabled", [True, False])
def test_a_pipe_gets_remarks_and_nothing_that_moves(
    capsys: pytest.CaptureFixture[str], enabled: bool
) -> None:
    with terminal_progress(enabled) as progress:
        progress.step("train", 1, 2, "loss 0.5")
        progress.remark("torch is not installed")
        progress.step("train", 2, 2, "loss 0.4")
    assert capsys.readouterr() == ("", "torch is not installed\n")
    assert isinstance(progress, Remarks)


def test_a_pipe_gets_a_line_now_and_then_of_a_long_task(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([0.0, *range(1, 40)])
    monkeypatch.setattr("headstart.system.progress.perf_counter", lambda: float(next(now)))
    progress = Remarks()
    for done in range(100, 3_700, 100):
        progress.step("read files of [x]", done, 20_000)
    assert capsys.readouterr().err.splitlines() == [
        "headstart: read files of [x]: 1,000 of 20,000, 100 images/s, 0:03:10 left",
        "headstart: read files of [x]: 3,000 of 20,000, 100 images/s, 0:02:50 left",
    ]
    progress.step("features of [x]", 5_000, 20_000)
    assert capsys.readouterr().err == "", "a new task begins"
    for _ in range(2):
        progress.step("train", 1, 1_999)
    assert capsys.readouterr().err == "", "a short one"


def test_a_terminal_hears_of_a_task_without_a_count() -> None:
    code = "import time\nfrom headstart.system.progress import terminal_progress\n"
    code += (
        "with terminal_progress() as progress:\n    progress.step('open [it]', 0, 0)\n    time.sleep(0.3)\n"
    )
    code += "    progress.step('read [it]', 1, 8)\n"
    status, said = on_a_terminal(code)
    assert status == 0 and "open [it]" in said and "read [it]" in said and "0 of 0" not in said


def test_silence_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    SILENT.step("train", 1, 2, "loss")
    SILENT.remark("anything")
    assert capsys.readouterr() == ("", "")


def test_a_pipe_does_not_cost_the_import_of_rich() -> None:
    code = "import sys\nfrom headstart.system.progress import terminal_progress\n"
    code += "with terminal_progress(): pass\n"
    code += "assert 'rich' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.PIPE)


class Heard:
    def __init__(self) -> None:
        self.steps: list[tuple[str, int, int]] = []

    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        self.steps.append((task, done, total))

    def remark(self, text: str) -> None:
        raise AssertionError("nothing to remark")


def test_batches_pass_unchanged_and_the_last_is_reported() -> None:
    batches = [np.full((size, 2, 2, 1), size, np.uint8) for size in (4, 4, 1)]
    heard = Heard()
    passed = list(with_progress(iter(batches), 9, "features", heard))
    assert all(one is other for one, other in zip(passed, batches, strict=True))
    assert heard.steps[-1] == ("features", 9, 9)


def test_steps_are_reported_ten_times_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(1000 + 0.03 * np.arange(100))
    monkeypatch.setattr("headstart.system.progress.perf_counter", lambda: next(now))
    heard = Heard()
    list(with_progress(iter([np.zeros((1, 1, 1, 1), np.uint8)] * 41), 41, "features", heard))
    assert [done for _, done, _ in heard.steps] == [*range(1, 41, 4), 41]
