"""Temporary folders: removed at the end of their process, however it ends, and never while it lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from headstart.system import temporary
from headstart.system.lock import locks_exist
from headstart.system.temporary import own_folder, sweep

PREFIX = "headstart-test-"
HOLD = """
import sys
from headstart.system.temporary import own_folder
with own_folder("headstart-test-") as folder:
    (folder / "file").write_text("x")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_a_folder_is_for_its_block(place: Path) -> None:
    with own_folder(PREFIX) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("x")
        assert folder.parent == place and folder.stat().st_mode & 0o077 == 0
    assert list(place.iterdir()) == []
    with pytest.raises(KeyError), own_folder(PREFIX):
        raise KeyError
    assert list(place.iterdir()) == []


@pytest.mark.skipif(not locks_exist(), reason="needs locks on files")
def test_a_killed_process_leaves_nothing_for_long(place: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        folder = Path(other.stdout.readline().strip())
        sweep(PREFIX)
        assert (folder / "file").exists()  # its owner lives
        other.send_signal(signal.SIGKILL)
        other.wait(20)
        assert (folder / "file").exists()
        with own_folder(PREFIX) as mine:
            assert list(place.iterdir()) == [mine]


def test_folders_of_others_stay(place: Path) -> None:
    (place / f"{PREFIX}new").mkdir()  # just begun by another process
    (place / "headstart-else-x").mkdir()
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    (place / f"{PREFIX}link").symlink_to(elsewhere)
    old = place / f"{PREFIX}old"  # of a process that was killed before it had a lock
    old.mkdir()
    os.utime(old, (0, 0))
    os.utime(elsewhere, (0, 0))
    sweep(PREFIX)
    left = {one.name for one in place.iterdir()}
    assert left == {f"{PREFIX}new", "headstart-else-x", "elsewhere", f"{PREFIX}link"}
    assert temporary._OLD_S >= 600
