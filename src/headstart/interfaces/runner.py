"""Where the Python interface works: ``hs.runner``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from headstart.data.reading import reading
from headstart.system.progress import SILENT
from headstart.system.runners import runner_named

__all__ = ["runner"]


@contextmanager
def runner(name: str | None = None) -> Iterator[None]:
    """Let `load`, `transfer`, `embed` and `study` work on a cluster within a block.

    Parameters
    ----------
    name : str, optional
        As ``--runner`` takes it: ``"ray"``, ``"ray:HOST:PORT"``, ``"ray://HOST:PORT"``, ``"ray:local"`` or
        ``"local"``. Default: ``HEADSTART_RUNNER``, else ``"local"``.

    Yields
    ------
    None
        Results are those of one process. A cluster that was not started here goes on afterwards.

    Raises
    ------
    SettingError
        If there is no such runner.
    RunnerError
        If the cluster cannot be reached, or its machines have other versions.
    MissingExtraError
        If Ray is not installed.

    Examples
    --------
    >>> import headstart as hs
    >>> with hs.runner("local"):
    ...     model = hs.transfer("pixels", "digits:0-1", head="ridge", judge=False)
    >>> model.classes
    ('0', '1')
    """
    with runner_named(name) as workers, reading(SILENT, runner=workers):
        yield
