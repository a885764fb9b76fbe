"""A folder of checkpoints of one training run, so that an interrupted run continues to the same bits."""

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
    exact_value,
    leaves_of,
    pack_snapshot,
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
    """A folder of checkpoints of one training run; in a ``with``, it also handles signals to stop.

    Only a run of the same ``identity`` (values as in ``Snapshot``) continues, and only with ``resume``. ``remarks``
    are sentences for the user. SettingError if the folder holds something else, another process uses it, or it has
    checkpoints and ``resume`` is false; CacheError if it cannot be read or locked.

    In the ``with``, SIGTERM and SIGINT only set ``stopping``; a second SIGINT raises KeyboardInterrupt at once.
    Handlers are not changed outside the main thread, nor that of a signal that is ignored (``nohup``) or whose
    handler is not Python's. Writing 100 MB takes two copies in memory, a SHA-256 and an fsync.
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
        self._folder, self._name = Path(folder), repr(os.fspath(folder))
        self._identity, self._interval_s, self._resume = exact_value(identity, "identity"), interval_s, resume
        self._whole: list[str] = []  # names of undamaged files, oldest first
        self._stopping, self._n_interrupts = False, 0
        self._handlers: dict[int, Any] = {}
        self._pid = os.getpid()
        self._lock: _Lock | None = None
        self._claimed = False
        if os.path.lexists(self._folder):
            self._claim(resuming=resume)
        else:
            check_place(self._folder, marker=_LOCK)  # a parent may be a file
        self._last = monotonic()

    def __enter__(self) -> Checkpoints:
        """Handle signals from here on, and count the interval from now."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                old = signal.getsignal(number)
                if old is not None and old is not signal.SIG_IGN:
                    self._handlers[number] = old
                    signal.signal(number, self._handle_signal)
        self._last = monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the signal handlers and release the folder; checkpoints stay."""
        while self._handlers:
            signal.signal(*self._handlers.popitem())
        self._release()

    @property
    def stopping(self) -> bool:
        """Whether a signal to stop was received."""
        return self._stopping

    def due(self) -> bool:
        """Whether to write a checkpoint now: the interval is over, or a signal to stop was received."""
        return self._stopping or monotonic() - self._last >= self._interval_s

    def found(self) -> Snapshot | None:
        """The newest undamaged checkpoint; None without ``resume`` or, with a remark, if there is none."""
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
            self._whole = [name]
            if damage:
                self._remark(
                    f"damaged in {self._name}: {'; '.join(damage)}: continued from the one before it, {name}"
                )
            return snapshot
        if names:
            raise CacheError(
                f"checkpoints in {self._name} are all damaged ({'; '.join(damage)}), expected an undamaged one to "
                "continue; delete the folder to start again"
            )
        self._remark(f"no checkpoint in {self._name}: started from the beginning")
        return None

    def keep(self, snapshot: Snapshot) -> None:
        """Write a checkpoint completely or not at all, then delete all but the newest two.

        If writing fails, CacheError is raised and older checkpoints remain. The next interval starts after this call.
        """
        step = snapshot.values.get("step")
        if not isinstance(step, int | np.integer) or isinstance(step, bool) or step < 0:
            raise SettingError(f"values['step'] is {step!r}, expected the number of steps done, at least 0")
        name = f"step-{step:09d}.safetensors"
        content = pack_snapshot(snapshot, self._identity)
        try:
            if self._lock is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._claim(resuming=False)
            write_atomic(self._folder / name, content)
            self._whole = [*(one for one in self._whole if one != name), name][-_KEPT:]
            for other in self._checkpoints():
                if other not in self._whole:
                    (self._folder / other).unlink(missing_ok=True)
        except OSError as error:
            if isinstance(error, CacheError):
                raise
            raise CacheError(
                f"checkpoint {name} in {self._name} cannot be written ({error.strerror or error}), expected a "
                "writable folder with free space; free some or name another"
            ) from error
        self._last = monotonic()

    def clear(self) -> None:
        """Delete the checkpoints, and the folder if nothing else is in it: the run is complete."""
        if not self._claimed:  # another run may use the folder now
            return
        if self._lock is None:  # after the with
            self._claim(resuming=True)
        for name in [*self._checkpoints(), *self._leftovers()]:
            (self._folder / name).unlink(missing_ok=True)
        self._whole = []
        self._release()
        with suppress(OSError):  # not empty, or gone
            self._folder.rmdir()

    def _handle_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked helper dies as it would have
            signal.signal(number, self._handlers[number])
            signal.raise_signal(number)
            return
        self._stopping = True
        self._n_interrupts += number == signal.SIGINT
        if self._n_interrupts > 1:
            raise KeyboardInterrupt

    def _claim(self, *, resuming: bool) -> None:
        """Check and lock the folder, and delete what killed writes left in it."""
        self._refuse_foreign_files()
        try:
            self._lock = _Lock(self._folder / _LOCK)
        except BlockingIOError as error:
            raise SettingError(
                f"{self._name} is in use by another run, expected one run per folder; "
                "wait for it or name another"
            ) from error
        except OSError as error:
            raise CacheError(
                f"{self._name} cannot be written to ({error.strerror or error}), expected a writable folder; "
                "name another"
            ) from error
        if self._checkpoints() and not resuming:
            self._release()
            raise SettingError(
                f"{self._name} holds checkpoints of an interrupted run, expected --resume to continue it; "
                "or delete the folder"
            )
        for name in self._leftovers():
            (self._folder / name).unlink(missing_ok=True)
        self._claimed = True

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _refuse_foreign_files(self) -> None:
        if not self._folder.is_dir():
            raise SettingError(f"{self._name} is a file, expected a folder for checkpoints; name another")
        expected = {_LOCK, *self._checkpoints(), *self._leftovers()}
        foreign = sorted(set(self._names()) - expected)
        if foreign:
            raise SettingError(
                f"{self._name} holds {foreign[0]!r}, which is not a checkpoint, expected a new or empty folder; "
                "name another"
            )

    def _names(self) -> list[str]:
        try:
            return os.listdir(self._folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CacheError(
                f"{self._name} cannot be read ({error.strerror}), expected a readable folder; name another"
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
                    f"checkpoint in {self._name} is of another run ({key} is {shortened(now.get(key))}, was "
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
