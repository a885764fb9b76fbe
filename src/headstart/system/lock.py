"""Exclusive locks on files; the system releases them when the file is closed or its process ends.

The locks are advisory: they exclude only other attempts to lock the same file, in any process.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any

__all__ = ["is_at", "locks_exist", "release_lock", "try_lock", "wait_for_lock"]

File = IO[Any] | int
"""An open file or its descriptor."""


def locks_exist() -> bool:
    """Whether the platform has such locks; Windows does not."""
    try:
        import fcntl  # noqa: F401
    except ImportError:
        return False
    return True


def wait_for_lock(file: File) -> None:
    """Wait until nobody else holds the lock, then take it; ImportError on Windows."""
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX)


def release_lock(file: File) -> None:
    """Let others take the lock, without closing the file."""
    import fcntl

    fcntl.flock(file, fcntl.LOCK_UN)


def try_lock(file: File) -> bool | None:
    """Take the lock, or return False if somebody else holds it, None if the platform or file system has none."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


def is_at(file: File, path: Path) -> bool:
    """Whether an open file is still the one at this path: another process may replace it between open and lock."""
    descriptor = file if isinstance(file, int) else file.fileno()
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
