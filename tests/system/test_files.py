"""Writes happen whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headstart.errors import SettingError
from headstart.system.files import atomic_folder, write_atomic

MARKER = "mark.json"


def fill(folder: Path, text: str) -> None:
    with atomic_folder(folder, marker=MARKER) as temporary:
        (temporary / MARKER).write_text(text)
        (temporary / "part").write_text(text)


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


def test_a_folder_appears_whole_and_replaces_its_elder(tmp_path: Path) -> None:
    target = tmp_path / "out" / "model"
    fill(target, "one")
    fill(target, "two")
    assert {one.name: one.read_text() for one in target.iterdir()} == {MARKER: "two", "part": "two"}
    assert os.listdir(target.parent) == ["model"]


def test_a_file_that_is_not_ours_is_spared(tmp_path: Path) -> None:
    target = tmp_path / "model"
    fill(target, "one")
    (target / "mine").write_text("x")
    with pytest.raises(SettingError, match="holds 'mine', which is no part of an older result"):
        fill(target, "two")
    assert {one.name: one.read_text() for one in target.iterdir()} == {
        MARKER: "one",
        "part": "one",
        "mine": "x",
    }
    assert os.listdir(tmp_path) == ["model"]


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    fill(tmp_path / "empty", "one")
    assert (tmp_path / "empty" / "part").read_text() == "one"


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_not_ours_is_not_replaced(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "holiday"
    kept = target / "photo.jpg" if kind == "folder" else target
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("mine")
    with pytest.raises(
        SettingError, match=r"holiday' exists and holds no mark\.json, expected .*; choose another"
    ):
        fill(target, "one")
    assert kept.read_text() == "mine" and os.listdir(tmp_path) == ["holiday"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failing_fill_leaves_the_old_folder(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "model"
    fill(target, "old")
    with pytest.raises(error), atomic_folder(target, marker=MARKER) as temporary:
        (temporary / MARKER).write_text("new")
        raise error
    assert (target / MARKER).read_text() == "old" and os.listdir(tmp_path) == ["model"]


def test_a_failing_swap_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "model"
    fill(target, "old")
    real = Path.rename

    def rename(self: Path, to: Path) -> Path:
        if self.suffix == ".part":
            refuse()
        return real(self, to)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="No space"):
        fill(target, "new")
    monkeypatch.undo()
    assert (target / MARKER).read_text() == "old" and os.listdir(tmp_path) == ["model"]
