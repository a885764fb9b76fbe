"""Files are looked at before they are read: pipes, sockets, devices, folders, huge files, links to nothing."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from headstart.data.files import LIMIT_BYTES, examine_file, read_bytes, read_head
from headstart.errors import BrokenDataError, MissingDataError


def made(kind: str, path: Path) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        home = Path.cwd()
        os.chdir(path.parent)  # the address of a socket may be at most 108 bytes
        try:
            socket.socket(socket.AF_UNIX).bind(path.name)
        finally:
            os.chdir(home)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.touch()
        os.truncate(path, 40 * 10**9)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("pipe", "it is a named pipe, not a file"),
        ("socket", "it is a socket, not a file"),
        ("device", "it is a device, not a file"),
        ("folder", "it is a folder, not a file"),
        ("sparse", f"it has 40,000,000,000 bytes, more than {LIMIT_BYTES:,}"),
    ],
)
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_what_is_no_file_is_not_read(kind: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    made(kind, path)
    assert examine_file(path).fault == f"{reason}; leave it out"
    assert read_head(path, 10) == b""
    with pytest.raises(BrokenDataError) as caught:
        read_bytes(path)
    assert str(caught.value) == (
        f"image {str(path)!r} cannot be read ({reason}), expected a readable file; leave it out"
    )


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        ("/nowhere/x.png", "restore the file, or delete the link"),
        ("../../.git/annex/objects/aa/x.png", "fetch it with git annex get"),
        ("/data/.dvc/cache/files/md5/aa/bb", "fetch it with dvc pull"),
    ],
)
def test_a_link_to_nothing_is_named(target: str, advice: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.symlink_to(target)
    assert examine_file(path).fault == f"it is a link to {target!r}, which does not exist; {advice}"
    with pytest.raises(BrokenDataError, match="which does not exist"):
        read_bytes(path)


def test_a_link_to_itself_and_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.symlink_to(path)
    assert "cannot be opened: Too many levels" in str(examine_file(path).fault)
    assert examine_file(tmp_path / "y.png").fault == "it does not exist; correct the path"
    with pytest.raises(MissingDataError, match=r"y\.png' does not exist"):
        read_bytes(tmp_path / "y.png")
