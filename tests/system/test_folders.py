"""Folders are replaced whole, in one step where the system can, beside any number of writers and readers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from headstart.errors import SettingError, UnwritableError
from headstart.system import folders
from headstart.system.exchange import try_exchange
from headstart.system.files import write_atomic
from headstart.system.folders import atomic_folder, read_stable
from headstart.system.leftovers import OLD, held, temporary_name
from headstart.system.lock import locks_exist

MARKER = "mark.json"
needs_locks = pytest.mark.skipif(not locks_exist(), reason="this platform has no locks on files")


def fill(folder: Path, text: str) -> None:
    with atomic_folder(folder, marker=MARKER) as temporary:
        (temporary / MARKER).write_text(text)
        (temporary / "part").write_text(text)


def refuse(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.fixture(params=["exchange", "two renames"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of replacing a folder."""
    if request.param == "two renames":
        monkeypatch.setattr(folders, "try_exchange", lambda *_: False)


@pytest.mark.usefixtures("_way")
def test_a_folder_appears_whole_and_replaces_its_elder(tmp_path: Path) -> None:
    target = tmp_path / "out" / "model"
    fill(target, "one")
    fill(target, "two")
    assert {one.name: one.read_text() for one in target.iterdir()} == {MARKER: "two", "part": "two"}
    assert os.listdir(target.parent) == ["model"]


@pytest.mark.usefixtures("_way")
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


@pytest.mark.usefixtures("_way")
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
    monkeypatch.setattr(folders, "try_exchange", lambda *_: False)

    def rename(self: Path, to: Path) -> Path:
        if self.suffix == ".part":
            refuse()
        return real(self, to)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="No space"):
        fill(target, "new")
    monkeypatch.undo()
    assert (target / MARKER).read_text() == "old" and os.listdir(tmp_path) == ["model"]


def test_two_folders_change_places(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for place in (one, other):
        place.mkdir()
        (place / "name").write_text(place.name)
    if not try_exchange(one, other):
        pytest.skip("this system cannot exchange two paths")
    assert (one / "name").read_text() == "other" and (other / "name").read_text() == "one"
    with pytest.raises(FileNotFoundError):
        try_exchange(one, tmp_path / "nowhere")


@pytest.mark.slow
def test_there_is_a_folder_at_every_moment(tmp_path: Path) -> None:
    """Read without a pause while it is replaced 200 times."""
    target = tmp_path / "model"
    fill(target, "0")
    (tmp_path / "other").mkdir()
    if not try_exchange(target, tmp_path / "other"):
        pytest.skip("this system cannot exchange two paths")
    try_exchange(target, tmp_path / "other")
    missing, n_reads, done = 0, 0, threading.Event()

    def read() -> None:
        nonlocal missing, n_reads
        while not done.is_set():
            n_reads += 1
            missing += not (target / MARKER).exists()

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        fill(target, str(number))
    done.set()
    reader.join()
    assert n_reads > 100 and not missing


@pytest.mark.usefixtures("_way")
def test_several_writers_leave_the_folder_of_one_of_them(tmp_path: Path) -> None:
    target, faults = tmp_path / "model", []

    def write(name: str) -> None:
        try:
            for number in range(20):
                fill(target, f"{name}{number}")
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not faults and os.listdir(tmp_path) == ["model"]
    assert (target / MARKER).read_text() == (target / "part").read_text()


@needs_locks
def test_leftovers_of_dead_writers_are_removed_and_those_of_living_ones_spared(tmp_path: Path) -> None:
    target, dead = tmp_path / "model", [temporary_name(tmp_path / "model", kind) for kind in ("part", OLD)]
    other = temporary_name(tmp_path / "another model")
    fill(target, "one")
    for place in (*dead, other):
        place.mkdir()
        (place / MARKER).write_text("dead")
    (tmp_path / ".model.notes.part").write_text("mine")
    living = temporary_name(target)
    living.mkdir()
    with held(living) as mine:
        assert mine
        fill(target, "two")
        assert sorted(os.listdir(tmp_path)) == sorted([living.name, other.name, ".model.notes.part", "model"])
    fill(target, "three")
    assert sorted(os.listdir(tmp_path)) == sorted([other.name, ".model.notes.part", "model"])


@needs_locks
def test_a_writer_that_died_between_two_renames_loses_nothing(tmp_path: Path) -> None:
    target = tmp_path / "model"
    fill(target, "old")
    target.rename(temporary_name(target, OLD))
    with pytest.raises(RuntimeError), atomic_folder(target, marker=MARKER):
        assert (target / MARKER).read_text() == "old"
        raise RuntimeError
    assert (target / MARKER).read_text() == "old" and os.listdir(tmp_path) == ["model"]


@needs_locks
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path, kind: str) -> None:
    program = {
        "folder": "from headstart.system.folders import atomic_folder as write; more = {'marker': 'mark.json'}",
        "file": "from headstart.system.files import atomic_file as write; more = {}",
    }[kind]
    program += "\nimport sys\nwith write(sys.argv[1], **more): print('in', flush=True); sys.stdin.read()"
    target = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"in\n"
        again = (lambda: fill(target, "x")) if kind == "folder" else (lambda: write_atomic(target, "x"))
        again()
        assert len(os.listdir(tmp_path)) == 2, "the other is alive"
        other.send_signal(signal.SIGKILL)
        other.wait()
    again()
    assert os.listdir(tmp_path) == ["out"]


def test_a_file_that_comes_while_the_folder_is_replaced_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model"
    fill(target, "one")

    def late(one: Path, other: Path) -> bool:
        if not (one / "mine").exists():
            (target / "mine").write_text("x")
        return try_exchange(one, other)

    monkeypatch.setattr(folders, "try_exchange", late)
    with pytest.raises(SettingError, match="holds 'mine'"):
        fill(target, "two")
    assert (target / "mine").read_text() == "x" and (target / MARKER).read_text() == "one"
    assert os.listdir(tmp_path) == ["model"]


def test_a_failing_write_names_the_file_as_it_would_be_called(tmp_path: Path) -> None:
    with pytest.raises(
        UnwritableError, match=r"file '[^']*/model/part' cannot be written \(No space"
    ) as said:
        with atomic_folder(tmp_path / "model", marker=MARKER) as temporary:
            raise OSError(28, "No space left on device", str(temporary / "part"))
    assert said.value.filename == str(tmp_path / "model" / "part") and not os.listdir(tmp_path)


def test_a_reader_reads_again_only_where_the_folder_was_replaced(tmp_path: Path) -> None:
    target, n_reads = tmp_path / "model", 0
    fill(target, "one")

    def read() -> str:
        nonlocal n_reads
        n_reads += 1
        if n_reads == 1:
            fill(target, "two")
            raise SettingError("mixed")
        return (target / MARKER).read_text()

    assert read_stable(target, read) == "two" and n_reads == 2

    def broken() -> str:
        nonlocal n_reads
        n_reads += 1
        raise SettingError("broken")

    with pytest.raises(SettingError, match="broken"):
        read_stable(target, broken)
    with pytest.raises(SettingError, match="broken"):
        read_stable(tmp_path / "nowhere", broken)
    assert n_reads == 4
