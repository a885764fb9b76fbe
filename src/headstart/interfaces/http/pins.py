"""The models of a server as they were when it started, whatever happens to their folders afterwards.

Where the system has /proc, the files stay open, and workers open them again through it: a folder that was
replaced or removed does not matter. Elsewhere workers read the folder, and only the same model is accepted.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from headstart.errors import ModelError
from headstart.models.manifest import FILES, LEARNED, SAMPLES
from headstart.models.model import Model, open_model

__all__ = ["Pin", "open_again", "pinned", "watched"]

_MANIFEST = "manifest.json"
_NAMES = (_MANIFEST, *FILES, SAMPLES, LEARNED)
_TRIES = 10  # a writer may replace the folder while it is read
_OPEN_FILES = Path("/proc/self/fd")
_LOOK_EVERY_S = 2.0


class Pin:
    """One model folder: its files, open, and the SHA-256 of its manifest, which has those of all others."""

    def __init__(self, name: str, folder: str) -> None:
        self.name, self.folder = name, folder
        self.files: dict[str, int] = {}
        try:
            for one in _NAMES:
                with suppress(FileNotFoundError):
                    self.files[one] = _regular(Path(folder) / one)
            self.sha256 = _hash_of(self.files[_MANIFEST]) if _MANIFEST in self.files else ""
        except BaseException:
            self.close()
            raise
        if not _OPEN_FILES.is_dir():
            self.close()  # nobody could use them, and on Windows they would keep the folder from being replaced

    def close(self) -> None:
        """Close the files."""
        while self.files:
            os.close(self.files.popitem()[1])

    def job(self, folder: Path) -> dict[str, Any]:
        """What a worker needs to open the model; ``folder`` is new and gets links to the open files."""
        about = {"name": self.name, "folder": self.folder, "sha256": self.sha256, "links": None}
        if not _OPEN_FILES.is_dir():
            return about
        folder.mkdir()
        for name, number in self.files.items():
            (folder / name).symlink_to(_OPEN_FILES / str(number))
        return {**about, "links": str(folder)}

    def sha256_now(self) -> str | None:
        """The SHA-256 of the manifest that is in the folder now; None if there is none."""
        try:
            number = _regular(Path(self.folder) / _MANIFEST)
        except OSError:
            return None
        try:
            return _hash_of(number)
        finally:
            os.close(number)


def pinned(models: Mapping[str, str]) -> dict[str, tuple[Model, Pin]]:
    """Open model folders (name to folder) and pin them; ModelError as `open_model`. The caller closes the pins."""
    found: dict[str, tuple[Model, Pin]] = {}
    try:
        for name, folder in models.items():
            found[name] = _opened(name, folder)
    except BaseException:
        for _, pin in found.values():
            pin.close()
        raise
    return found


def _opened(name: str, folder: str) -> tuple[Model, Pin]:
    """A model and its pin, certainly of the same state of the folder."""
    for left in reversed(range(_TRIES)):
        try:
            pin = Pin(name, folder)
        except OSError as error:
            open_model(folder)  # says in our words what is wrong
            raise ModelError(
                f"model {folder!r} cannot be opened ({error}), expected a folder of readable files; check it"
            ) from error
        try:
            model = open_model(folder)
        except BaseException:
            same = pin.sha256_now() == pin.sha256
            pin.close()
            if same or not left:
                raise
            continue
        if pin.sha256_now() == pin.sha256:
            return model, pin
        pin.close()
    raise ModelError(
        f"model {folder!r} is replaced again and again, expected a folder at rest; wait until it is written"
    )


def open_again(about: Mapping[str, Any]) -> Model:
    """The model of a `Pin.job`, in a worker; ModelError if it is another than the one the server started with."""
    place = str(about["links"] or about["folder"])
    try:
        sha256 = hashlib.sha256((Path(place) / _MANIFEST).read_bytes()).hexdigest()
        if sha256 != about["sha256"]:
            raise ModelError("it was replaced or written over")
        return open_model(place)
    except (ModelError, OSError) as error:
        reason = str(error).replace(place, str(about["folder"]))
        raise ModelError(
            f"model {about['name']!r} in {about['folder']!r} cannot be opened as it was when the server started "
            f"({reason}), expected the same files; put them back, or restart the server to serve the new model"
        ) from error


@contextmanager
def watched(pins: Sequence[Pin], every_s: float = _LOOK_EVERY_S) -> Iterator[None]:
    """Warn once on stderr for every model folder that is replaced or removed, for the duration of the block."""
    stop = Event()
    thread = Thread(target=_watch, args=(pins, stop, every_s), name="model-folders", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()


def _watch(pins: Sequence[Pin], stop: Event, every_s: float) -> None:
    before: dict[str, str | None] = {pin.name: pin.sha256 for pin in pins}
    said = dict(before)
    while not stop.wait(every_s):
        for pin in pins:
            now = pin.sha256_now()
            # a folder may be absent for a moment while it is replaced
            settled, before[pin.name] = now == before[pin.name], now
            if settled and now != said[pin.name]:
                said[pin.name] = now
                print(f"headstart: warning: {_change(pin, now)}", file=sys.stderr, flush=True)


def _change(pin: Pin, now: str | None) -> str:
    where = f"model {pin.name!r} in {pin.folder!r}"
    if now == pin.sha256:
        return f"{where} is again the one that the server serves"
    if now is None:
        return f"{where} is no longer there; the server keeps the model that it started with"
    return (
        f"{where} was replaced; the server keeps the model that it started with; "
        "restart the server to serve the new one"
    )


def _regular(path: Path) -> int:
    """A descriptor of a regular file; OSError for anything else, and never a wait for a pipe's other end."""
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(f"{path.name} is not a regular file")
    return number


def _hash_of(number: int) -> str:
    """The SHA-256 of an open file, from its beginning."""
    found = hashlib.sha256()
    os.lseek(number, 0, os.SEEK_SET)
    while piece := os.read(number, 2**20):
        found.update(piece)
    return found.hexdigest()
