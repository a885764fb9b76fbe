"""Files that visitors have sent and not yet taught: in a temporary folder, with a total limit.

They have names of ours; those that the visitors' machines gave them are only shown.
"""

from __future__ import annotations

import shutil
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import IO
from uuid import uuid4

from headstart.errors import DataError

__all__ = ["WaitingFiles"]

_LIMIT_BYTES = 2 * 2**30
_LIMIT_FILES = 10_000


class WaitingFiles:
    """A folder of such files; thread-safe. Where there is no room for a new one, the oldest are removed.

    A page that is open is a session, which may be there several times. The files that it has named go when it ends; a
    file that no open session has named can be removed by `remove_unnamed`, or it would stay for a page that was
    closed between sending and naming it.
    """

    def __init__(
        self, folder: Path, *, limit_bytes: int = _LIMIT_BYTES, limit_files: int = _LIMIT_FILES
    ) -> None:
        self._folder = folder
        self._limit_bytes, self._limit_files = limit_bytes, limit_files
        self._sizes: OrderedDict[str, int] = OrderedDict()  # by path, the oldest first
        self._open: Counter[str] = Counter()
        self._named: dict[str, set[str]] = {}  # paths by open session
        self._lock = Lock()

    @contextmanager
    def session(self, name: str) -> Iterator[None]:
        """A page that is open for the duration of the block."""
        with self._lock:
            self._open[name] += 1
        try:
            yield
        finally:
            with self._lock:
                self._open[name] -= 1
                paths = set[str]()
                if not self._open[name]:
                    del self._open[name]
                    paths = self._named.pop(name, paths)
            self.remove(paths)

    def name(self, session: str, paths: Iterable[str]) -> None:
        """Note that a session has named files; without effect where it is not open."""
        with self._lock:
            if session in self._open:
                self._named.setdefault(session, set()).update(path for path in paths if path in self._sizes)

    def remove_unnamed(self, paths: Iterable[str]) -> None:
        """Remove those of some files that no open session has named."""
        with self._lock:
            unnamed = set(paths).difference(*self._named.values())
        self.remove(unnamed)

    def add(self, content: IO[bytes], size_bytes: int) -> str:
        """Store a file; returns its path, which nobody can guess."""
        path = str(self._folder / uuid4().hex)
        with self._lock:
            while self._sizes and (
                sum(self._sizes.values()) + size_bytes > self._limit_bytes
                or len(self._sizes) >= self._limit_files
            ):
                self._remove(next(iter(self._sizes)))
            self._sizes[path] = size_bytes
        try:
            with open(path, "xb") as file:
                shutil.copyfileobj(content, file)
        except BaseException:
            self.remove([path])
            raise
        return path

    def __contains__(self, path: str) -> bool:
        with self._lock:
            return path in self._sizes

    def size_bytes(self, path: str) -> int:
        """The size of a file; 0 if it is not here."""
        with self._lock:
            return self._sizes.get(path, 0)

    def read(self, path: str, name: str) -> bytes:
        """The content of a file; DataError, with the name it had, if it is not here any more."""
        if path in self:
            try:
                return Path(path).read_bytes()
            except FileNotFoundError:
                pass  # removed just now
        raise DataError(f"{name} is no longer on the server, expected a file just sent; choose it again")

    def remove(self, paths: Iterable[str]) -> None:
        """Remove those of some files that are here."""
        with self._lock:
            for path in paths:
                if path in self._sizes:
                    self._remove(path)

    def _remove(self, path: str) -> None:
        del self._sizes[path]
        Path(path).unlink(missing_ok=True)
