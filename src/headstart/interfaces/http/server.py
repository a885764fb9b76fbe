"""Open models and serve them over HTTP until stopped; what needs the extra is imported late."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.errors import HeadstartError, SettingError
from headstart.interfaces.http.access import Access, make_access
from headstart.interfaces.http.limits import Limits, printable
from headstart.interfaces.http.pins import open_again, pinned, watched
from headstart.interfaces.http.workers import (
    BACKLOG,
    MOST_WORKERS,
    Turn,
    divided,
    leave,
    n_cores,
    notify_parent,
    read_job,
    supervise,
)
from headstart.models.model import Model
from headstart.models.novelty_rate import NoveltyRate
from headstart.system.optional import require

if TYPE_CHECKING:
    from headstart.interfaces.http.api import Share

__all__ = ["allow_many_connections", "bound_socket", "model_folders", "serve_models", "work"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LARGEST_OPTION = 64
_OPEN_FILES = 65_536


def serve_models(
    models: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    limits: Limits | None = None,
    precision: str = "fp32",
    workers: int = 0,
    novelty_rate: NoveltyRate = None,
    allow_origins: Sequence[str] = (),
) -> None:
    """Serve models over HTTP until SIGTERM or SIGINT; then finish the requests in progress and return.

    ``models`` are folders; ``NAME=FOLDER`` gives one another name than the folder's. The models are served as
    they are now, even if a folder is replaced later. ``port`` 0 takes any free port, which is printed.
    ``token`` is the bearer token that every request must carry. ``workers`` 0 starts one process per core, at
    most 4; 1 serves from this process. ``novelty_rate`` is as for `Model.with_novelty_rate`.
    ``allow_origins`` are the web pages that may use the server, such as
    ``https://example.com``; ``*`` are all. Raises `ModelError`, `SettingError`, `WorkersError` or
    `MissingExtraError`.
    """
    for module in ("h11", "uvicorn", "starlette", "prometheus_client"):
        require(module, extra="serve", for_="headstart serve")
    _check_token(token)
    limits = limits or Limits()
    requested = _n_workers(workers)
    each, n_workers = divided(limits, requested)
    make_access(host, host, allow_origins=allow_origins)  # its errors come before models are opened
    with ExitStack() as stack:
        opened = pinned(model_folders(models))
        pins = [stack.enter_context(closing(pin)) for _, pin in opened.values()]
        for model, _ in opened.values():
            model.with_novelty_rate(novelty_rate)  # its errors come before workers start
        listener = stack.enter_context(closing(bound_socket(host, port)))
        access = make_access(host, listener.getsockname()[0], allow_origins=allow_origins, token=token)
        _warn_of(host, access, token, requested=workers, started=n_workers)
        address = f"[{host}]" if ":" in host else host
        url = f"http://{address}:{listener.getsockname()[1]}"
        ready = partial(
            print, f"Serving {', '.join(opened)} at {url} (API documentation: {url}/docs)", flush=True
        )
        allow_many_connections()
        stack.enter_context(watched(pins))
        if n_workers == 1:
            loaded = {name: model.with_novelty_rate(novelty_rate) for name, (model, _) in opened.items()}
            _serve(loaded, listener, ready, limits=limits, token=token, precision=precision, access=access)
            return
        del opened  # the children open them for themselves
        job = {
            "token": token,
            "limits": asdict(each),
            "precision": precision,
            "novelty_rate": novelty_rate,
            "n_workers": n_workers,
            "access": {**asdict(access), "allowed": sorted(access.allowed)},
        }
        supervise(job, pins, listener, n_workers, limits.drain_s, ready)


def work() -> None:
    """Run as one of the child processes that `serve_models` starts; the job is on stdin."""
    job = read_job()
    from headstart.interfaces.http.api import Share

    share = Share(
        n_threads=max(1, n_cores() // job["n_workers"]),
        n_lanes=max(1, min(4, n_cores()) // job["n_workers"]),  # one worker alone would have as many
        turn=Turn(Path(job["folder"]) / "large-image"),
    )
    try:
        with socket.socket(fileno=job["listener"]) as listener:
            _serve(
                {
                    about["name"]: open_again(about).with_novelty_rate(job["novelty_rate"])
                    for about in job["models"]
                },
                listener,
                partial(notify_parent, job),
                limits=Limits(**job["limits"]),
                token=job["token"],
                precision=job["precision"],
                access=Access(**{**job["access"], "allowed": frozenset(job["access"]["allowed"])}),
                share=share,
                lifeline=0,
            )
    except HeadstartError as error:
        notify_parent(job, str(error))
    finally:
        leave(job)


def _serve(
    models: Mapping[str, Model],
    listener: socket.socket,
    ready: Callable[[], object],
    *,
    limits: Limits,
    token: str | None,
    precision: str,
    access: Access,
    share: Share | None = None,
    lifeline: int | None = None,
) -> None:
    """Serve from this process until a signal arrives."""
    from headstart.interfaces.http.api import make_app
    from headstart.interfaces.http.listening import run_app

    app = make_app(models, token=token, limits=limits, precision=precision, share=share, access=access)
    try:
        run_app(app, listener, limits, ready, lifeline, stopping=app.drain)
    finally:
        app.close()


def model_folders(words: Sequence[str]) -> dict[str, str]:
    """Name to folder of the models given by ``FOLDER`` or ``NAME=FOLDER``, in order.

    Raises `SettingError` for a name that is invalid or given twice.
    """
    if not words:
        raise SettingError("models is empty, expected one or more model folders; name them")
    found: dict[str, str] = {}
    for word in words:
        given, equals, folder = word.partition("=")
        if not equals or Path(word).exists():  # a folder may have = in its name
            given, folder = Path(word).resolve().name, word
        if not _NAME.fullmatch(given):
            raise SettingError(
                f"name {printable(given)!r} of model {printable(folder)!r} has characters that a URL cannot carry, "
                "expected 1 to 64 of A-Z a-z 0-9 . _ -; give it one with NAME=FOLDER"
            )
        if given in found:
            raise SettingError(
                f"name {given!r} is given to {found[given]!r} and {folder!r}, expected one for each; "
                "give them with NAME=FOLDER"
            )
        found[given] = folder
    return found


def _n_workers(requested: int) -> int:
    """The requested number, or one per core where processes can share a socket."""
    if not 0 <= requested <= _LARGEST_OPTION:
        raise SettingError(
            f"workers is {requested}, expected 1 to {_LARGEST_OPTION}, or 0 for one per core and at most "
            f"{MOST_WORKERS}; choose with --workers"
        )
    if os.name != "posix":
        return 1
    return requested or min(n_cores(), MOST_WORKERS)


def _warn_of(host: str, access: Access, token: str | None, *, requested: int, started: int) -> None:
    """Warn of an open server, and of fewer workers than were requested."""
    if token is None and access.own_name is None:
        _warn(
            f"host {host} can be reached from other machines and no token is set; "
            "set one with --token or HEADSTART_TOKEN"
        )
    if 0 < requested != started:
        _warn(
            f"only {started} of {requested} workers are started: the limits or the system do not allow more"
        )


def allow_many_connections() -> None:
    """Raise the limit of open files, or a thousand idle connections would keep everybody else out."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        more = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
        if soft != resource.RLIM_INFINITY and soft < more:
            resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))


def _warn(sentence: str) -> None:
    print(f"headstart: warning: {sentence}", file=sys.stderr)


def _check_token(token: str | None) -> None:
    if token is not None and (not token or not token.isascii() or not token.isprintable() or " " in token):
        raise SettingError(
            "token is empty or has characters that a header cannot carry, expected printable ASCII "
            "without spaces; make one with: openssl rand -hex 16"
        )


def bound_socket(host: str, port: int) -> socket.socket:
    """A bound socket, so that the address is known before it is printed."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(BACKLOG)  # connections before the loop runs wait instead of being refused
        except OSError:
            bound.close()
            raise
    except (OSError, UnicodeError) as error:
        raise SettingError(
            f"address {printable(host)} port {port} is not available ({error}), expected a free one of this machine; "
            "choose another with --host and --port"
        ) from error
    return bound
