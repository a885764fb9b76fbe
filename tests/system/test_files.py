"""Writes happen whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headstart.errors import UnwritableError
from headstart.system.files import write_atomic


def refuse(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_writes_text_and_bytes_and_makes_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "file.txt"
    assert write_atomic(path, "grün") == path
    assert path.read_bytes() == "grün".encode()
    assert write_atomic(str(path), b"\x00\r\n").read_bytes() == b"\x00\r\n"
    assert [one.name for one in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failing_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = write_atomic(tmp_path / "file", "old")
    monkeypatch.setattr(*((os, "fsync") if failing == "fsync" else (Path, "replace")), refuse)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new and longer")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_atomic(tmp_path / "file", "old")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_nothing_is_seen_under_the_name_before_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, real = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (seen.append((tmp_path / "file").exists()), real(handle)))
    write_atomic(tmp_path / "file", "all of it")
    assert seen == [False] and (tmp_path / "file").read_text() == "all of it"


def test_a_failing_write_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_atomic(tmp_path / "file", "old")
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(
        UnwritableError, match=r"file '.*file' cannot be written \(No space left on device\)"
    ) as said:
        write_atomic(path, "new")
    assert said.value.errno == errno.ENOSPC and said.value.filename == str(path)


def test_a_limit_on_the_size_of_files_names_the_file(tmp_path: Path) -> None:
    """A real one, in a process of its own: what a full disk does, without a file's name in the system's error."""
    program = (
        "import resource, sys; from headstart.system.files import write_atomic; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); write_atomic(sys.argv[1], b'x' * 2000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "file")],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (
        "UnwritableError: file '" in done.stderr and "file' cannot be written (File too large)" in done.stderr
    )
    assert not os.listdir(tmp_path)
