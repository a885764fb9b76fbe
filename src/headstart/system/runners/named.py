"""The runner that a user names, on the command line or in ``HEADSTART_RUNNER``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from headstart.errors import SettingError
from headstart.system.progress import SILENT, Progress
from headstart.system.runners.contract import Runner
from headstart.system.runners.local import LOCAL

__all__ = ["RUNNER_VARIABLE", "runner_named"]

RUNNER_VARIABLE = "HEADSTART_RUNNER"
_EXPECTED = (
    "expected local, ray (the cluster of RAY_ADDRESS, or the one that runs on this machine), ray:HOST:PORT, "
    "ray://HOST:PORT (Ray Client) or ray:local (a cluster of this machine alone)"
)


@contextmanager
def runner_named(name: str | None = None, progress: Progress = SILENT) -> Iterator[Runner]:
    """A runner by its name, for a block; None is that of ``HEADSTART_RUNNER``, else this process.

    SettingError if there is no such runner; `HeadstartError` if its cluster cannot be reached; `MissingExtraError` if
    Ray is not installed.

    >>> with runner_named("local") as runner:
    ...     sorted(runner.map(lambda: abs, [-1, -2]))
    [(0, 1), (1, 2)]
    """
    given = name if name is not None else os.environ.get(RUNNER_VARIABLE) or LOCAL.name
    scheme, _, address = given.partition(":")
    if given == LOCAL.name:
        yield LOCAL
        return
    if scheme != "ray" or (":" in given and not address.strip("/")):
        where = "runner" if name is not None else f"runner in {RUNNER_VARIABLE}"
        raise SettingError(f"{where} is {given!r}, {_EXPECTED}; name one of these")
    from headstart.system.runners.cluster import RayRunner

    runner = RayRunner(given if address.startswith("//") else address, progress)
    try:
        yield runner
    finally:
        runner.close()
