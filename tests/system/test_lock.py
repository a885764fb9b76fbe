"""Locks: one holder at a time, released by closing or dying, and no error where there are no locks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from headstart.system.lock import is_at, locks_exist, try_lock, wait_for_lock

needs_locks = pytest.mark.skipif(not locks_exist(), reason="this platform has no locks on files")
HOLDER = (
    "import sys; from headstart.system.lock import try_lock\n"
    "file = open(sys.argv[1], 'ab'); print(try_lock(file), flush=True); sys.stdin.read()"
)


@needs_locks
def test_a_lock_has_one_holder_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("ab") as first, path.open("ab") as second:
        assert try_lock(first) is True
        assert try_lock(second.fileno()) is False
        first.close()
        assert try_lock(second.fileno()) is True


@needs_locks
def test_a_lock_ends_with_its_process_and_who_waits_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with (
        subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other,
        path.open("ab") as mine,
    ):
        assert other.stdout is not None and other.stdout.readline() == b"True\n"
        assert try_lock(mine) is False
        thread = threading.Thread(target=wait_for_lock, args=(mine,))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        other.kill()
        thread.join(10)
        assert not thread.is_alive()
        with path.open("ab") as another:
            assert try_lock(another) is False


def test_where_there_are_no_locks_none_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "lock").open("ab") as file:
        monkeypatch.setitem(sys.modules, "fcntl", None)
        assert not locks_exist() and try_lock(file) is None
        with pytest.raises(ImportError):
            wait_for_lock(file)


@needs_locks
def test_a_file_system_without_locks_is_no_other_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    with (tmp_path / "lock").open("ab") as file:
        monkeypatch.setattr("fcntl.flock", refuse)
        assert try_lock(file) is None
        with pytest.raises(OSError, match="No locks"):
            wait_for_lock(file)


def test_a_file_replaced_or_deleted_is_no_longer_at_its_path(tmp_path: Path) -> None:
    path, new = tmp_path / "lock", tmp_path / "new"
    with path.open("ab") as file:
        assert is_at(file, path) and is_at(file.fileno(), path)
        new.touch()
        os.replace(new, path)
        assert not is_at(file, path)
        path.unlink()
        assert not is_at(file, path)
