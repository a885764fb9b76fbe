"""Checkpoints of a training run: where it stands, on disk, so that it can go on to the very bit.

In: snapshots (arrays and plain values), and an identity that says which run they are of. Out: the
newest whole snapshot again, and the word that it is time to keep one. No pickle: safetensors and JSON.
Must not import an engine or the loop: it knows nothing of training. Called by ``training.fit``.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic
from types import FrameType, TracebackType
from typing import Any

import numpy as np

from headstart.errors import CacheError, SettingError
from headstart.networks.checkpoint_files import (
    DamagedError,
    Snapshot,
    leaves_of,
    pack_snapshot,
    plain_value,
    restored_value,
    shortened,
    unpack_snapshot,
)
from headstart.system.files import check_place, write_atomic
from headstart.system.lock import is_at, locks_exist, try_lock

__all__ = ["Checkpoints"]

_KEPT = 2  # the newest, and the one before it in case the newest is damaged
_LOCK = ".lock"
_NAME = re.compile(r"step-(\d{9,})\.safetensors")
_LEFTOVER = re.compile(r"\.step-\d{9,}\.safetensors\.[0-9a-f]{32}\.part")  # as write_atomic names them


class Checkpoints:
    """A folder of checkpoints of one training run; used in a ``with``, it also hears signals to stop.

    Parameters
    ----------
    folder : path
        Where they lie; made when the first is kept. Nothing else may lie there.
    identity : mapping of str to object
        Says which run it is; values as in ``Snapshot``. Only a run of the same identity goes on.
    interval_s : float, default=60.0
        Seconds between two checkpoints.
    resume : bool, default=False
        Whether to go on with what lies in the folder.

    Attributes
    ----------
    remarks : list of str
        What the user should hear of, a sentence each: damage, or nothing to go on with.

    Raises
    ------
    SettingError
        If the folder holds something else, another process writes there, or it holds checkpoints and
        ``resume`` is false; or if ``interval_s`` is below 0.
    CacheError
        If the folder cannot be read or locked.

    Notes
    -----
    Inside ``with``, SIGTERM and SIGINT only set ``stopping``, and a second SIGINT raises
    KeyboardInterrupt at once. Handlers are left alone outside the main thread, and so is a signal that
    is ignored (``nohup``) or whose handler is not Python's. One process at a time per folder, where
    there is ``fcntl``. Writing 100 MB takes two copies in memory, a SHA-256 and an fsync.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     with Checkpoints(f"{place}/run", {"epochs": 5}) as checkpoints:
    ...         checkpoints.keep(Snapshot({"weights": np.arange(3)}, {"step": 10}))
    ...     with Checkpoints(f"{place}/run", {"epochs": 5}, resume=True) as checkpoints:
    ...         snapshot = checkpoints.found()
    ...         checkpoints.clear()
    >>> snapshot.arrays["weights"], snapshot.values["step"]
    (array([0, 1, 2]), 10)
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        identity: Mapping[str, Any],
        *,
        interval_s: float = 60.0,
        resume: bool = False,
    ) -> None:
        if not interval_s >= 0:
            raise SettingError(f"interval_s is {interval_s!r}, expected a number of seconds of at least 0")
        self.remarks: list[str] = []
        self._folder, self._shown = Path(folder), repr(os.fspath(folder))
        self._identity, self._interval_s, self._resume = plain_value(identity, "identity"), interval_s, resume
        self._good: list[str] = []  # names of whole files, in the order of the run
        self._stopping, self._n_interrupts = False, 0
        self._handlers: dict[int, Any] = {}
        self._pid = os.getpid()
        self._lock: _Lock | None = None
        self._ours = False
        if os.path.lexists(self._folder):
            self._occupy(going_on=resume)
        else:
            check_place(self._folder, marker=_LOCK)  # a file may stand above it
        self._last = monotonic()

    def __enter__(self) -> Checkpoints:
        """Hear signals from here on, and count the interval from now."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                old = signal.getsignal(number)
                if old is not None and old is not signal.SIG_IGN:
                    self._handlers[number] = old
                    signal.signal(number, self._hear)
        self._last = monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give signals back to whoever heard them, and the folder free; checkpoints stay."""
        while self._handlers:
            signal.signal(*self._handlers.popitem())
        self._leave()

    @property
    def stopping(self) -> bool:
        """Whether a signal asked to stop."""
        return self._stopping

    def due(self) -> bool:
        """Whether to keep a checkpoint now: the interval is over, or a signal asked to stop."""
        return self._stopping or monotonic() - self._last >= self._interval_s

    def found(self) -> Snapshot | None:
        """Read the newest whole checkpoint, where the run is to be gone on with.

        Returns
        -------
        Snapshot or None
            None if ``resume`` is false, or if there is no checkpoint; a remark then says so.

        Raises
        ------
        SettingError
            If the checkpoint is of a run of another identity.
        CacheError
            If there are checkpoints and all are damaged.
        """
        if not self._resume:
            return None
        names = sorted(self._checkpoints(), key=_step, reverse=True)
        damage: list[str] = []
        for name in names:
            try:
                snapshot, identity = unpack_snapshot(self._folder / name)
            except DamagedError as why:
                damage.append(f"{name} {why}")
                continue
            self._check_identity(identity)
            self._good = [name]
            if damage:
                self._remark(
                    f"damaged in {self._shown}: {'; '.join(damage)}: went on from the one before it, {name}"
                )
            return snapshot
        if names:
            raise CacheError(
                f"checkpoints in {self._shown} are all damaged ({'; '.join(damage)}), expected a whole one to "
                "go on; delete the folder to start anew"
            )
        self._remark(f"no checkpoint in {self._shown}: started from the beginning")
        return None

    def keep(self, snapshot: Snapshot) -> None:
        """Write a checkpoint whole or not at all, then delete all but the newest two.

        Parameters
        ----------
        snapshot : Snapshot
            Where the run stands.

        Raises
        ------
        SettingError
            If the snapshot holds what cannot be kept, or another run took the folder meanwhile.
        CacheError
            If the disk refuses; older checkpoints are then still there.

        Notes
        -----
        The time since the last checkpoint counts from the end of this call.
        """
        step = snapshot.values.get("step")
        if not isinstance(step, int | np.integer) or isinstance(step, bool) or step < 0:
            raise SettingError(f"values['step'] is {step!r}, expected the number of steps done, at least 0")
        name = f"step-{step:09d}.safetensors"
        content = pack_snapshot(snapshot, self._identity)
        try:
            if self._lock is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._occupy(going_on=False)
            write_atomic(self._folder / name, content)
            self._good = [*(one for one in self._good if one != name), name][-_KEPT:]
            for other in self._checkpoints():
                if other not in self._good:
                    (self._folder / other).unlink(missing_ok=True)
        except OSError as error:
            if isinstance(error, CacheError):
                raise
            raise CacheError(
                f"checkpoint {name} in {self._shown} cannot be written ({error.strerror or error}), expected a "
                "folder to write to with room in it; make room or name another"
            ) from error
        self._last = monotonic()

    def clear(self) -> None:
        """Delete the checkpoints, and the folder if nothing else is in it: the run is done."""
        if not self._ours:  # what may lie there now is another run's
            return
        if self._lock is None:  # after the with
            self._occupy(going_on=True)
        for name in [*self._checkpoints(), *self._leftovers()]:
            (self._folder / name).unlink(missing_ok=True)
        self._good = []
        self._leave()
        with suppress(OSError):  # not empty, or gone
            self._folder.rmdir()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked helper is no training run: it dies as it would have
            signal.signal(number, self._handlers[number])
            signal.raise_signal(number)
            return
        self._stopping = True
        self._n_interrupts += number == signal.SIGINT
        if self._n_interrupts > 1:
            raise KeyboardInterrupt

    def _occupy(self, *, going_on: bool) -> None:
        """Make sure the folder is ours to write to, hold it, and sweep up after killed writes."""
        self._refuse_strange()
        try:
            self._lock = _Lock(self._folder / _LOCK)
        except BlockingIOError as error:
            raise SettingError(
                f"{self._shown} is in use by another run, expected a folder to itself; "
                "wait for it or name another"
            ) from error
        except OSError as error:
            raise CacheError(
                f"{self._shown} cannot be written to ({error.strerror or error}), expected a folder that can; "
                "name another"
            ) from error
        if self._checkpoints() and not going_on:
            self._leave()
            raise SettingError(
                f"{self._shown} holds checkpoints of an interrupted run, expected --resume to go on with it; "
                "or delete the folder"
            )
        for name in self._leftovers():
            (self._folder / name).unlink(missing_ok=True)
        self._ours = True

    def _leave(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _refuse_strange(self) -> None:
        if not self._folder.is_dir():
            raise SettingError(f"{self._shown} is a file, expected a folder for checkpoints; name another")
        ours = {_LOCK, *self._checkpoints(), *self._leftovers()}
        strange = sorted(set(self._names()) - ours)
        if strange:
            raise SettingError(
                f"{self._shown} holds {strange[0]!r}, which is no checkpoint, expected a new or empty folder; "
                "name another"
            )

    def _names(self) -> list[str]:
        try:
            return os.listdir(self._folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CacheError(
                f"{self._shown} cannot be read ({error.strerror}), expected a folder that can; name another"
            ) from error

    def _checkpoints(self) -> list[str]:
        return [name for name in self._names() if _NAME.fullmatch(name)]

    def _leftovers(self) -> list[str]:
        return [name for name in self._names() if _LEFTOVER.fullmatch(name)]

    def _check_identity(self, old: Any) -> None:
        mine = json.loads(json.dumps(self._identity), object_hook=restored_value)
        was, now = dict(leaves_of(old)), dict(leaves_of(mine))
        for key in (*now, *was):
            if was.get(key) != now.get(key):
                raise SettingError(
                    f"checkpoint in {self._shown} is of another run ({key} is {shortened(now.get(key))}, was "
                    f"{shortened(was.get(key))}), expected the same command; give that, or delete the folder"
                )

    def _remark(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)


class _Lock:
    """A lock file, held until released, collected, or the process dies; no file where there is no fcntl."""

    def __init__(self, place: Path) -> None:
        self._place = place
        descriptor = _held(place)
        self._descriptor = descriptor
        self._close = weakref.finalize(self, os.close, descriptor) if descriptor is not None else None

    def release(self) -> None:
        """Delete the file while it is still held, so that nobody else's is deleted; then let go."""
        if self._descriptor is None or self._close is None:
            return
        with suppress(OSError):
            if is_at(self._descriptor, self._place):
                self._place.unlink()
        self._close()


def _held(place: Path) -> int | None:
    """A descriptor that holds the lock; BlockingIOError if another process does."""
    if not locks_exist():
        return None
    while True:
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o644)
        held = try_lock(descriptor)
        if held is None or (held and is_at(descriptor, place)):  # else its last holder deleted it meanwhile
            return descriptor
        os.close(descriptor)
        if not held:
            raise BlockingIOError(f"{place} is locked")


def _step(name: str) -> int:
    found = _NAME.fullmatch(name)
    assert found is not None
    return int(found[1])
