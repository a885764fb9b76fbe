"""Serve the teaching page from this process: our listener and gate, gradio behind them, one temporary folder.

What needs the extra is imported late.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from headstart.errors import SettingError
from headstart.interfaces.http.access import make_access
from headstart.interfaces.http.limits import Limits
from headstart.interfaces.http.server import allow_many_connections, bound_socket
from headstart.interfaces.http.workers import stop_signals
from headstart.interfaces.teach.classroom import FOLDER
from headstart.interfaces.teach.waiting_files import WaitingFiles
from headstart.models.novelty_rate import NoveltyRate, checked_rate
from headstart.sources.registry import open_source
from headstart.system.optional import check_installed
from headstart.system.temporary import own_folder

__all__ = ["serve_page"]

_EXTRA = ("gradio", "starlette", "h11", "uvicorn")
_DRAIN_S = 3.0
_GRADIO_FOLDER = "GRADIO_TEMP_DIR"


def serve_page(
    source: str | None, output: Path, *, host: str, port: int, novelty_rate: NoveltyRate = None
) -> None:
    """Serve the page until SIGTERM or SIGINT; nothing that visitors sent stays behind."""
    for module in _EXTRA:
        check_installed(module, extra="teach", for_="headstart teach")
    novelty_rate = checked_rate(novelty_rate)
    opened = None if source is None else open_source(source)
    with _ended_in_order(), closing(bound_socket(host, port)) as listener, _folder() as folder:
        from headstart.interfaces.http.listening import run_app
        from headstart.interfaces.teach.gate import Gate

        # gradio writes where its variable says when it is imported
        from headstart.interfaces.teach.page import make_app, make_page

        address, number = listener.getsockname()[:2]
        access = make_access(host, address)
        if access.own_name is None:
            print(
                f"headstart: warning: host {host} can be reached from other machines, and everybody there may "
                "teach and save models; use 127.0.0.1 for this machine alone",
                file=sys.stderr,
            )
        files = WaitingFiles(folder / "files")
        page = make_page(opened, output, files, novelty_rate)
        app, stop = make_app(page, host, number)
        gate = Gate(
            app,
            replace(access, use_name="use one of them", use_origin="open the teaching page itself"),
            files,
        )
        name = f"[{host}]" if ":" in host else host
        allow_many_connections()
        run_app(
            gate,
            listener,
            Limits(drain_s=_DRAIN_S),
            partial(print, f"Teach at http://{name}:{number}/  (stop with Ctrl+C)", flush=True),
            stopping=stop,
            lifespan="on",
        )


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let a signal during the start, which takes seconds, end the process by an exception: folders are removed."""
    before = {one: signal.signal(one, _end) for one in stop_signals() if one != signal.SIGINT}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _end(number: int, _: object) -> None:
    raise SystemExit(128 + number)


@contextmanager
def _folder() -> Iterator[Path]:
    """The temporary folder of this server, which gradio uses, too."""
    before = os.environ.get(_GRADIO_FOLDER)
    try:
        with own_folder(FOLDER) as folder:
            (folder / "files").mkdir()
            os.environ[_GRADIO_FOLDER] = str(folder)
            yield folder
    except OSError as error:
        raise SettingError(
            f"temporary folder cannot be used ({error}), expected one that can be written; set TMPDIR"
        ) from error
    finally:
        if before is None:
            os.environ.pop(_GRADIO_FOLDER, None)
        else:
            os.environ[_GRADIO_FOLDER] = before
