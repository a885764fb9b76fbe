"""How many cores no other program keeps busy, for commands that share a machine."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Usage", "allowed_cores", "cores_left"]

_STAT = Path("/proc/stat")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_USER, _NICE, _IDLE, _WAITING, _LAST = 0, 1, 3, 4, 8  # columns; those after the eighth are counted in others


@dataclass(frozen=True)
class Usage:
    """Seconds of processor time since some moment: of all programs that did not lower their priority, and of this."""

    wall_s: float
    everyone_s: float
    own_s: float

    @classmethod
    def now(cls) -> Usage | None:
        """Up to now; None where the system does not say."""
        try:
            fields = [int(one) for one in _STAT.read_text().split("\n", 1)[0].split()[1 : 1 + _LAST]]
            ticks = os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, AttributeError):
            return None
        if len(fields) < _LAST:
            return None
        busy = sum(fields) - fields[_IDLE] - fields[_WAITING] - fields[_NICE]
        mine = os.times()
        own = mine.user + mine.system + mine.children_user + mine.children_system
        return cls(time.monotonic(), busy / ticks, own)


def cores_left(before: Usage, after: Usage, n_cores: int, n_allowed: int) -> int:
    """Cores that other programs left free between two moments, at least 1 and at most as many as are allowed.

    A program that keeps less than half a core busy takes none. The own time counts for nothing.

    >>> cores_left(Usage(0.0, 0.0, 0.0), Usage(2.0, 3.0, 1.0), n_cores=4, n_allowed=4)
    3
    """
    wall = max(after.wall_s - before.wall_s, 1e-3)
    others = (after.everyone_s - before.everyone_s - (after.own_s - before.own_s)) / wall
    return max(1, min(n_allowed, n_cores - int(max(others, 0.0) + 0.5)))


def allowed_cores() -> int:
    """Cores that this process may use: by its affinity, and by the quota of its container, rounded up."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text().split()
        return max(1, min(cores, -(-int(quota) // int(period))))
    except (OSError, ValueError):  # no container, or "max"
        return cores
