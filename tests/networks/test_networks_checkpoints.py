"""Checkpoints come back bit for bit, whole or not at all, and only to the run they are of."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.errors import CacheError, SettingError
from headstart.networks import checkpoint_files as files
from headstart.networks import checkpoints as module
from headstart.networks.checkpoint_files import Snapshot
from headstart.networks.checkpoints import Checkpoints

IDENTITY = {"data": "8c1f", "settings": {"epochs": 5, "learning_rate": 0.1}, "engine": "torch"}


def open_(folder: Path, **options: Any) -> Checkpoints:
    return Checkpoints(folder, IDENTITY, **options)


def at(step: int, size: int = 8) -> Snapshot:
    arrays = {"weights": np.random.default_rng(step).standard_normal(size), "seen": np.arange(step % 5)}
    return Snapshot(arrays, {"step": step, "loss": 1 / (step + 1)})


def kept(folder: Path, *steps: int) -> None:
    with open_(folder) as checkpoints:
        for step in steps:
            checkpoints.keep(at(step))


def found(folder: Path) -> tuple[Snapshot | None, list[str]]:
    with open_(folder, resume=True) as checkpoints:
        return checkpoints.found(), checkpoints.remarks


def step_of(snapshot: Snapshot | None) -> int:
    assert snapshot is not None
    same(snapshot, at(snapshot.values["step"]))
    return int(snapshot.values["step"])


def bits(value: Any) -> Any:
    """The value with its floats as bits: NaN equals itself only thus, and 0.0 is not -0.0."""
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, dict):
        return {key: bits(one) for key, one in value.items()}
    return [bits(one) for one in value] if isinstance(value, list) else (type(value), value)


def same(one: Snapshot, other: Snapshot) -> None:
    assert list(one.arrays) == list(other.arrays)
    for name, array in one.arrays.items():
        wanted = other.arrays[name]
        assert (array.dtype, array.shape) == (wanted.dtype, wanted.shape), name
        assert array.tobytes() == wanted.tobytes(), name
    assert bits(one.values) == bits(other.values)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def file(step: int) -> str:
    return f"step-{step:09d}.safetensors"


# --- what comes back


def test_comes_back_bit_for_bit(tmp_path: Path) -> None:
    payload = struct.unpack("<d", bytes.fromhex("efbeadde0000f8ff"))[0]  # a NaN with sign and payload
    rng = np.random.default_rng(3)
    grid = np.arange(24, dtype=np.float32).reshape(4, 6)
    arrays: dict[str, NDArray[Any]] = {
        "z last name first": np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324, payload]),
        "conv1/weight": grid[::2, ::-3],
        "turned": grid.T,
        "0-d": np.array(-0.0, np.float32),
        "0-d int": np.array(2**63 - 1),
        "empty": np.zeros((0, 4), np.int64),
        "empty bool": np.zeros((3, 0), bool),
        "bool": np.array([True, False, True]),
        "bytes": np.arange(7, dtype=np.uint8),
        "half": np.array([1.5, np.nan], np.float16),
        "unsigned": np.array([2**32 - 1], np.uint32),
    }
    values = {
        "step": 12,
        "rng": rng.bit_generator.state,
        "floats": [np.nan, payload, np.inf, -np.inf, -0.0, 0.1, 5e-324, 1.7976931348623157e308],
        "ints": [2**128 - 1, -(2**200), 0],
        "best": None,
        "flags": [True, False],
        "text": 'grün "quoted" \n\x00 \udc80',
        "$bits": {"$bits": "7ff8000000000000", "$": {}, "$$": []},
        "only": {"$bits": 1.0},
        "": {"": float("-inf")},
    }
    with open_(tmp_path) as checkpoints:
        checkpoints.keep(Snapshot(arrays, values))
    snapshot, remarks = found(tmp_path)
    assert snapshot is not None and not remarks
    same(snapshot, Snapshot(arrays, values))
    assert all(array.flags.writeable and array.flags.c_contiguous for array in snapshot.arrays.values())
    again = np.random.default_rng()
    again.bit_generator.state = snapshot.values["rng"]
    assert again.random() == rng.random()


def test_an_array_of_the_other_byte_order_comes_back_with_the_same_numbers(tmp_path: Path) -> None:
    with open_(tmp_path) as checkpoints:
        checkpoints.keep(Snapshot({"a": np.array([1.5, -2], ">f4")}, {"step": 0}))
    snapshot, _ = found(tmp_path)
    assert snapshot is not None
    assert snapshot.arrays["a"].dtype == np.float32 and snapshot.arrays["a"].tolist() == [1.5, -2]


def test_numpy_scalars_and_tuples_come_back_as_plain_values(tmp_path: Path) -> None:
    loss = np.float32(0.1)
    with open_(tmp_path) as checkpoints:
        checkpoints.keep(Snapshot({}, {"step": np.int64(3), "loss": loss, "pair": (1, np.float64(2))}))
    snapshot, _ = found(tmp_path)
    assert snapshot is not None and snapshot.arrays == {}
    assert bits(snapshot.values) == bits({"step": 3, "loss": float(loss), "pair": [1, 2.0]})


@pytest.mark.parametrize(
    ("arrays", "values", "said"),
    [
        ({}, {}, r"values\['step'\] is None, expected the number of steps"),
        ({}, {"step": True}, "is True, expected"),
        ({}, {"step": -1}, "is -1, expected"),
        (
            {},
            {"step": 1, "a": [{"b": np.zeros((9, 9))}]},
            r"values\['a'\]\[0\]\['b'\] is of type ndarray, expected",
        ),
        ({}, {"step": 1, "a": {3: 4}}, r"values\['a'\] has the key 3, expected text"),
        ({"a": np.array(["x"])}, {"step": 1}, "array 'a' has dtype <U1, expected one of bool, float16"),
        ({"a": np.zeros(1, complex)}, {"step": 1}, "has dtype complex128, expected"),
        ({"__metadata__": np.zeros(1)}, {"step": 1}, "array is named '__metadata__', expected"),
        ({"\udc80": np.zeros(1)}, {"step": 1}, "expected a name in Unicode"),
    ],
)
def test_what_cannot_be_kept_is_refused(
    tmp_path: Path, arrays: dict[str, Any], values: dict[str, Any], said: str
) -> None:
    with open_(tmp_path / "run") as checkpoints, pytest.raises(SettingError, match=said) as caught:
        checkpoints.keep(Snapshot(arrays, values))
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_what_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_LIMIT_TEXT_BYTES", 400)
    monkeypatch.setattr(files, "_LIMIT_BYTES", 1000)
    with open_(tmp_path) as checkpoints:
        for wrong in (Snapshot({"a": np.zeros(126)}, {"step": 1}), Snapshot({}, {"step": 1, "a": "x" * 400})):
            with pytest.raises(SettingError, match=r"expected at most 1,000 and 400; put large values into"):
                checkpoints.keep(wrong)
        checkpoints.keep(Snapshot({"a": np.zeros(125)}, {"step": 2}))
    monkeypatch.setattr(files, "_LIMIT_BYTES", -1200)
    with pytest.raises(CacheError, match=f"{file(2)} is too large"):
        found(tmp_path)


# --- which are kept, and when


def test_the_newest_two_stay_by_number_not_by_name(tmp_path: Path) -> None:
    kept(tmp_path, 8, 9, 999_999_999, 1_000_000_000)
    assert names(tmp_path) == [file(1_000_000_000), file(999_999_999)]
    assert step_of(found(tmp_path)[0]) == 1_000_000_000


def test_a_step_kept_twice_is_one_file_and_the_later_one(tmp_path: Path) -> None:
    with open_(tmp_path) as checkpoints:
        checkpoints.keep(at(1))
        checkpoints.keep(Snapshot({}, {"step": 2}))
        checkpoints.keep(at(2))
    assert names(tmp_path) == [file(1), file(2)] and step_of(found(tmp_path)[0]) == 2


def test_the_folder_is_made_on_the_first_keep_and_goes_when_the_run_is_done(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    with open_(folder) as checkpoints:
        assert checkpoints.found() is None and not checkpoints.remarks and not folder.parent.exists()
        checkpoints.keep(at(1))
        checkpoints.clear()
        assert names(tmp_path / "deep") == []
        checkpoints.keep(at(2))  # and may begin again
    assert names(folder) == [file(2)]
    checkpoints.clear()  # after the with, too
    assert not folder.exists()


def test_clear_spares_what_is_not_ours(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with open_(folder) as early:
        kept(folder, 1)
        early.clear()  # it never wrote there
    assert names(folder) == [file(1)]
    with open_(folder, resume=True) as checkpoints:
        (folder / "notes.txt").write_text("mine")
        checkpoints.clear()
    assert names(folder) == ["notes.txt"]


def test_due_when_the_interval_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    checkpoints = open_(tmp_path, interval_s=60)
    now += 1000
    with checkpoints:
        assert not checkpoints.due()  # counted from the with on
        now += 59.9
        assert not checkpoints.due()
        now += 0.2
        assert checkpoints.due() and checkpoints.due()
        checkpoints.keep(at(1))
        assert not checkpoints.due() and not checkpoints.stopping
    with open_(tmp_path / "other", interval_s=0) as always:
        assert always.due()


@pytest.mark.parametrize("wrong", [-1, float("nan")])
def test_an_interval_below_zero_is_refused(tmp_path: Path, wrong: float) -> None:
    with pytest.raises(SettingError, match=f"interval_s is {wrong}, expected"):
        open_(tmp_path, interval_s=wrong)


def test_due_reads_the_clock_and_nothing_else(tmp_path: Path) -> None:
    """It is called after every step, so it must not touch a file."""
    called: list[str] = []

    def note(frame: FrameType, event: str, what: object) -> None:
        if event in ("call", "c_call"):
            called.append(frame.f_code.co_name if event == "call" else getattr(what, "__name__", "?"))

    with open_(tmp_path) as checkpoints:
        before = sys.getprofile()
        sys.setprofile(note)
        checkpoints.due()
        sys.setprofile(before)
    assert called == ["due", "monotonic", "setprofile"]


# --- going on


def test_nothing_to_go_on_with_is_said_and_no_error(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with open_(folder, resume=True) as checkpoints:
            assert checkpoints.found() is None and checkpoints.found() is None
        assert checkpoints.remarks == [f"no checkpoint in {str(folder)!r}: started from the beginning"]
    assert names(tmp_path) == []


def test_a_resumed_run_goes_on_keeping_two(tmp_path: Path) -> None:
    kept(tmp_path, 1, 2)
    with open_(tmp_path, resume=True) as checkpoints:
        assert step_of(checkpoints.found()) == 2
        checkpoints.keep(at(3))
        assert file(2) in names(tmp_path) and file(1) not in names(tmp_path)
        checkpoints.keep(at(4))
    assert names(tmp_path) == [file(3), file(4)]


def test_without_resume_checkpoints_are_not_written_over(tmp_path: Path) -> None:
    kept(tmp_path, 1)
    said = f"{str(tmp_path)!r} holds checkpoints of an interrupted run, expected --resume to continue it; "
    with pytest.raises(SettingError) as caught:
        open_(tmp_path)
    assert str(caught.value) == said + "or delete the folder"
    assert names(tmp_path) == [file(1)]


def test_another_runs_checkpoints_that_came_meanwhile_are_not_written_over(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with open_(folder) as late:
        kept(folder, 1)
        with pytest.raises(SettingError, match="holds checkpoints of an interrupted run"):
            late.keep(at(9))
    assert names(folder) == [file(1)]


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({**IDENTITY, "data": "77"}, "(data is '77', was '8c1f')"),
        ({**IDENTITY, "settings": {"epochs": 7, "learning_rate": 1}}, "(settings.epochs is 7, was 5)"),
        ({**IDENTITY, "settings": {"epochs": 5.0, "learning_rate": 0.1}}, "(settings.epochs is 5.0, was 5)"),
        ({**IDENTITY, "more": [1]}, "(more is [1], was not given)"),
        ({"data": "8c1f", "engine": "torch"}, "(settings.epochs is not given, was 5)"),
        ({**IDENTITY, "engine": "x" * 500}, f"(engine is 'x{'x' * 55}..., was 'torch')"),
    ],
)
def test_another_run_does_not_go_on(tmp_path: Path, now: dict[str, Any], said: str) -> None:
    kept(tmp_path, 1)
    with Checkpoints(tmp_path, now, resume=True) as checkpoints, pytest.raises(SettingError) as caught:
        checkpoints.found()
    assert str(caught.value) == (
        f"checkpoint in {str(tmp_path)!r} is of another run {said}, expected the same command; "
        "give that, or delete the folder"
    )
    assert names(tmp_path) == [file(1)]


def test_an_identity_equals_itself_whatever_is_in_it(tmp_path: Path) -> None:
    odd = {"a": float("nan"), "b": (1, np.int64(2)), "c": {"$bits": -0.0, "d.e": {}}, "f": "\udc80"}
    with Checkpoints(tmp_path, odd) as checkpoints:
        checkpoints.keep(at(4))
    reordered = dict(reversed(odd.items()))
    with Checkpoints(tmp_path, reordered, resume=True) as checkpoints:
        assert step_of(checkpoints.found()) == 4


# --- damage


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << (place % 8)
    path.write_bytes(content)


def header_end(path: Path) -> int:
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


@pytest.mark.parametrize(
    "how", ["empty", "short", "cut in the header", "cut by one", "longer", "zeros", "folder"]
)
def test_the_one_before_a_damaged_one_is_taken(tmp_path: Path, how: str) -> None:
    kept(tmp_path, 1, 2)
    path = tmp_path / file(2)
    content = path.read_bytes()
    new = {
        "empty": b"",
        "short": content[:5],
        "cut in the header": content[:100],
        "cut by one": content[:-1],
        "longer": content + b"\0",
        "zeros": bytes(len(content)),
    }
    path.unlink()
    path.write_bytes(new[how]) if how in new else path.mkdir()
    snapshot, remarks = found(tmp_path)
    assert step_of(snapshot) == 1
    assert len(remarks) == 1 and remarks[0].startswith(f"damaged in {str(tmp_path)!r}: {file(2)} ")
    assert remarks[0].endswith(f": continued from the one before it, {file(1)}")


def test_a_flipped_bit_is_told(tmp_path: Path) -> None:
    """Header or arrays, each of a byte's bits in turn: told, or (in padding) it changes nothing."""
    kept(tmp_path, 1, 2)
    path = tmp_path / file(2)
    content = path.read_bytes()
    told = 0
    with open_(tmp_path, resume=True) as checkpoints:
        for place in range(0, len(content), 3):
            flip(path, place)
            step = step_of(checkpoints.found())  # step_of compares all of it with what was written
            assert step in (1, 2)
            told += step == 1
            path.write_bytes(content)
    # places that mean nothing: blanks that pad the header, and between its words
    n_flips = len(range(0, len(content), 3))
    assert n_flips - told <= content[: header_end(path)].count(b" ")
    assert told > 0.9 * n_flips


def test_a_damaged_one_does_not_push_a_whole_one_out(tmp_path: Path) -> None:
    """The numbers go back after damage: what is kept is the newest in time, not the highest number."""
    kept(tmp_path, 10, 20)
    flip(tmp_path / file(20), -1)
    with open_(tmp_path, resume=True) as checkpoints:
        assert step_of(checkpoints.found()) == 10
        checkpoints.keep(at(13))
        checkpoints.keep(at(16))
    assert names(tmp_path) == [file(13), file(16)]


def test_all_damaged_is_an_error_of_one_line(tmp_path: Path) -> None:
    kept(tmp_path, 1, 2)
    flip(tmp_path / file(1), -1)
    (tmp_path / file(2)).write_bytes(b"")
    with pytest.raises(CacheError) as caught:
        found(tmp_path)
    assert str(caught.value) == (
        f"checkpoints in {str(tmp_path)!r} are all damaged ({file(2)} is not a complete file; {file(1)} does not "
        "match its checksum), expected an undamaged one to continue; delete the folder to start again"
    )


def test_another_format_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_FORMAT", 2)
    kept(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(
        CacheError, match=r"all damaged \(step-000000001.safetensors has format 2, expected 1\)"
    ):
        found(tmp_path)


# --- the folder


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("stranger", ["notes.txt", "step-1.safetensors", ".step-000000001.safetensors.part"])
def test_somebody_elses_folder_is_refused(tmp_path: Path, stranger: str, resume: bool) -> None:
    (tmp_path / stranger).write_text("mine")
    with pytest.raises(SettingError) as caught:
        open_(tmp_path, resume=resume)
    assert str(caught.value) == (
        f"{str(tmp_path)!r} holds {stranger!r}, which is not a checkpoint, expected a new or empty folder; "
        "name another"
    )
    assert names(tmp_path) == [stranger]


def test_a_file_in_the_way_is_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(SettingError, match="is a file, expected a folder"):
            open_(place)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SettingError, match="expected a folder"):
        open_(tmp_path / "link")


def test_leftovers_of_killed_writes_are_swept_and_never_read(tmp_path: Path) -> None:
    kept(tmp_path, 1)
    leftover = tmp_path / f".{file(2)}.{'0a' * 16}.part"
    leftover.write_bytes((tmp_path / file(1)).read_bytes())
    assert step_of(found(tmp_path)[0]) == 1 and not leftover.exists()
    leftover.write_bytes(b"")
    with pytest.raises(SettingError, match="expected --resume"):
        open_(tmp_path)
    (tmp_path / file(1)).unlink()
    with open_(tmp_path):
        assert not leftover.exists()


def test_a_full_disk_is_one_line_and_the_old_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with open_(tmp_path) as checkpoints:
        checkpoints.keep(at(1))
        checkpoints.keep(at(2))
        monkeypatch.setattr(os, "fsync", refuse)
        with pytest.raises(CacheError) as caught:
            checkpoints.keep(at(3))
    assert str(caught.value) == (
        f"checkpoint {file(3)} in {str(tmp_path)!r} cannot be written (No space left on device), expected a "
        "writable folder with free space; free some or name another"
    )
    assert names(tmp_path) == [file(1), file(2)]


# --- the lock


def test_a_second_run_is_refused_while_the_first_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    kept(tmp_path, 1)
    with open_(tmp_path, resume=True) as first:
        leftover = tmp_path / f".{file(2)}.{'0a' * 16}.part"
        leftover.write_bytes(b"being written by the first")
        for resume in (True, False):
            with pytest.raises(SettingError) as caught:
                open_(tmp_path, resume=resume)
            assert str(caught.value) == (
                f"{str(tmp_path)!r} is in use by another run, expected one run per folder; "
                "wait for it or name another"
            )
        assert leftover.exists()
        first.keep(at(2))
    assert step_of(found(tmp_path)[0]) == 2
    folder = tmp_path / "new"
    with open_(folder) as first, open_(folder) as second:
        first.keep(at(1))
        with pytest.raises(SettingError, match="in use by another run"):
            second.keep(at(2))
        first.keep(at(3))


def test_the_lock_goes_with_the_process_and_a_lock_file_left_over_does_not_hold(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    program = (
        "import sys, headstart.networks.checkpoints as c\n"
        "one = c.Checkpoints(sys.argv[1], {})\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(SettingError, match="in use by another run"):
            open_(tmp_path)
        other.kill()
    assert names(tmp_path) == [".lock"]
    with open_(tmp_path) as checkpoints:
        checkpoints.keep(at(1))
    assert names(tmp_path) == [file(1)]


def test_a_lock_deleted_by_its_last_holder_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    real, calls = fcntl.flock, []

    def slow(descriptor: int, how: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:  # the last holder goes between our open and our lock
            (tmp_path / ".lock").unlink()
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", slow)
    with open_(tmp_path), pytest.raises(SettingError, match="in use"):
        open_(tmp_path)
    assert len(calls) == 3 and names(tmp_path) == []


def test_without_locks_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    kept(tmp_path / "a", 1)
    assert names(tmp_path / "a") == [file(1)] and step_of(found(tmp_path / "a")[0]) == 1
    monkeypatch.undo()
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    kept(tmp_path / "b", 1)
    assert names(tmp_path / "b") == [file(1)]


# --- signals


@pytest.fixture
def usual_handlers() -> Iterator[None]:
    """Tests started in the background inherit an ignored SIGINT."""
    olds = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, old in olds.items():
        signal.signal(number, old)


@pytest.mark.usefixtures("usual_handlers")
def test_a_second_interrupt_interrupts_and_the_old_handlers_come_back(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_(tmp_path, interval_s=3600) as checkpoints:
        assert not checkpoints.due()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # supervisors repeat themselves
        signal.raise_signal(signal.SIGINT)
        assert checkpoints.due() and checkpoints.stopping
        checkpoints.keep(at(1))
        assert checkpoints.due()
        signal.raise_signal(signal.SIGINT)
        pytest.fail("not reached")  # pragma: no cover
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert names(tmp_path) == [file(1)]


@pytest.mark.usefixtures("usual_handlers")
def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open_(tmp_path) as checkpoints:
        signal.raise_signal(signal.SIGINT)
        assert not checkpoints.stopping
        signal.raise_signal(signal.SIGTERM)
        assert checkpoints.stopping
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.usefixtures("usual_handlers")
def test_outside_the_main_thread_handlers_are_left_alone(tmp_path: Path) -> None:
    seen: list[object] = []

    def run() -> None:
        with open_(tmp_path, interval_s=0) as checkpoints:
            seen.append(signal.getsignal(signal.SIGINT))
            checkpoints.keep(at(1))
            seen.append(checkpoints.due())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler, True]


TRAINING = """
import signal, sys, time
import numpy as np
from headstart.networks.checkpoints import Checkpoints
from headstart.networks.checkpoint_files import Snapshot
signal.signal(signal.SIGINT, signal.default_int_handler)
with Checkpoints(sys.argv[1], {}, interval_s=3600) as checkpoints:
    for step in range(1, 100_000):
        if step == 5:
            print("begun", flush=True)
        time.sleep(0.001)
        if checkpoints.due():
            checkpoints.keep(Snapshot({"step": np.array(step)}, {"step": step}))
        if checkpoints.stopping:
            print(step)
            sys.exit(3)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals to send")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_makes_a_real_run_write_one_and_leave(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None and run.stdout.readline() == "begun\n"
        run.send_signal(number)
        step = int(run.stdout.readline())
        assert run.wait(20) == 3
    assert names(tmp_path / "run") == [file(step)]
    with Checkpoints(tmp_path / "run", {}, resume=True) as checkpoints:
        snapshot = checkpoints.found()
    assert snapshot is not None and snapshot.arrays["step"] == step


FORKING = """
import os, signal, sys, time
from headstart.networks.checkpoints import Checkpoints
signal.signal(signal.SIGINT, signal.default_int_handler)
with Checkpoints(sys.argv[1], {}) as checkpoints:
    for number in (signal.SIGTERM, signal.SIGINT):
        reads, writes = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.write(writes, b".")
                time.sleep(20)
            except KeyboardInterrupt:
                os._exit(5)
            os._exit(6)
        os.read(reads, 1)  # Python forgets signals that come while it forks
        os.kill(child, number)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(checkpoints.stopping)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_helper_can_still_be_ended(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKING, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == [str(-signal.SIGTERM), "5", "False"]


# --- kill -9

# Forks: they die as any other process does, and forty-five need not import NumPy forty-five times.
KILLED = """
import json, os, random, signal, sys, time
import numpy as np
from headstart.networks.checkpoints import Checkpoints
from headstart.networks.checkpoint_files import Snapshot

def at(step):
    rng = np.random.default_rng(step)
    arrays = {"a": rng.integers(0, 2**40, 200_000), "b": np.array(step)}
    return Snapshot(arrays, {"step": step, "x": 1 / step})

def whole(snapshot):
    wanted = at(snapshot.values["step"])
    return snapshot.values == wanted.values and all(
        np.array_equal(snapshot.arrays[name], array) for name, array in wanted.arrays.items()
    )

def train(folder, pipe, moment):
    if moment:
        die_at(*moment)
    with Checkpoints(folder, {"run": 1}, resume=True, interval_s=0) as checkpoints:
        snapshot = checkpoints.found()
        first = snapshot.values["step"] if snapshot else 0
        said = {"found": first, "whole": not snapshot or whole(snapshot), "remarks": checkpoints.remarks}
        os.write(pipe, (json.dumps(said) + "\\n").encode())
        for step in range(first + 1, first + 500):
            checkpoints.keep(at(step))
            os.write(pipe, (json.dumps({"kept": step}) + "\\n").encode())

def die_at(place, name, count):
    owner, real, calls = (os if place == "os" else __import__("pathlib").Path), None, [0]
    real = getattr(owner, name)
    def deadly(*values, **options):
        calls[0] += 1
        if calls[0] == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*values, **options)
    setattr(owner, name, deadly)

def one(folder, moment, share):
    # killed at a moment, or after three keeps and a share of the time that one takes
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reads)
            train(folder, writes, moment)
        finally:
            os._exit(7)
    os.close(writes)
    with os.fdopen(reads) as lines:
        told = [json.loads(lines.readline() or '{"found": "nothing"}')]
        if not moment:
            begun = time.monotonic()
            told += [json.loads(lines.readline()) for _ in range(3)]
            time.sleep(share * (time.monotonic() - begun) / 3)
            os.kill(child, signal.SIGKILL)
        told += [json.loads(line) for line in lines if line.endswith("\\n")]
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    left = os.listdir(folder) if os.path.isdir(folder) else []
    return {**told[0], "kept": [line["kept"] for line in told[1:]], "killed": killed, "left": left}

random.seed(20)
moments = [("os", "fsync", 2), ("pathlib", "replace", 3), ("pathlib", "unlink", 2), ("os", "fsync", 1)]
told = [one(sys.argv[1], None, random.uniform(0.0, 2.0)) for _ in range(40)]
told += [one(sys.argv[1], moment, 0) for moment in moments] + [one(sys.argv[1], None, 1.0)]
print(json.dumps(told))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_run_killed_at_any_moment_goes_on_from_a_whole_checkpoint(tmp_path: Path) -> None:
    tmp_path = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, check=True, timeout=600
    )
    told = json.loads(done.stdout)
    assert len(told) == 45
    last = 0
    for one in told:
        assert one["killed"] and one["whole"] and one["found"] != "nothing", one
        # the last that was kept; or the next one, if the kill came between its writing and its telling
        assert one["found"] in (last, last + 1), one
        assert one["remarks"] == [] or (last == 0 and one["found"] == 0), one
        assert one["kept"] == list(range(one["found"] + 1, one["found"] + 1 + len(one["kept"]))), one
        last = max([one["found"], *one["kept"]])
    # the kills did what they were to do: some in the middle of a write
    assert last > 100 and sum(any(".part" in name for name in one["left"]) for one in told) >= 3
    with Checkpoints(tmp_path, {"run": 1}, resume=True) as checkpoints:
        snapshot = checkpoints.found()
        assert snapshot is not None and snapshot.values["step"] in (last, last + 1)
        checkpoints.clear()
    assert not tmp_path.exists()


def test_an_interrupt_during_a_write_leaves_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with open_(tmp_path) as checkpoints:
        checkpoints.keep(at(1))
        monkeypatch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.keep(at(2))
    assert names(tmp_path) == [file(1)]
