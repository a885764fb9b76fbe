"""Open models and answer over HTTP until told to stop; requests under way are finished first.

Imports what answers only when it is about to, so that a missing extra is one sentence.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.errors import HeadstartError, SettingError
from headstart.interfaces.http.limits import Limits, shown
from headstart.interfaces.http.workers import (
    BACKLOG,
    MOST_WORKERS,
    Turn,
    divided,
    n_cores,
    read_job,
    supervise,
    tell_parent,
)
from headstart.models.model import Model, open_model
from headstart.system.optional import require

if TYPE_CHECKING:
    from headstart.interfaces.http.api import Share

__all__ = ["read_models", "serve_models", "work"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MOST_ASKED = 64


def serve_models(
    models: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    limits: Limits | None = None,
    precision: str = "fp32",
    workers: int = 0,
) -> None:
    """Answer over HTTP until SIGTERM or SIGINT; then finish what is under way and return.

    Parameters
    ----------
    models : sequence of str
        Model folders; ``NAME=FOLDER`` gives one a name, else it is the folder's last part.
    host : str, default='127.0.0.1'
        Address to listen at.
    port : int, default=8000
        0 takes any that is free; the line that is printed says which.
    token : str, optional
        Bearer token that every request must carry.
    limits : Limits, optional
        What it takes at most.
    precision : {'fp32', 'bf16', 'auto'}, default='fp32'
        What networks compute in; auto is bf16 where this machine's processor has it.
    workers : int, default=0
        Processes that answer: 0 is one a core, at most 4; 1 is this process alone.

    Raises
    ------
    ModelError
        If a model cannot be opened.
    SettingError
        If a name is no name or given twice, the token is no token, or the address cannot be had.
    WorkersError
        If the processes that should answer do not stay alive.
    MissingExtraError
        If the packages of the extra ``serve`` are not installed.
    """
    for module in ("uvicorn", "starlette", "prometheus_client"):
        require(module, extra="serve", for_="headstart serve")
    _check_token(token)
    limits = limits or Limits()
    wanted = _n_workers(workers)
    each, n_workers = divided(limits, wanted)
    opened = read_models(models)
    with closing(_listener(host, port)) as listener:
        if token is None and not _is_loopback(host):
            _warn(
                f"host {host} can be reached from other machines and no token is set; "
                "set one with --token or HEADSTART_TOKEN"
            )
        if 0 < workers != n_workers:
            _warn(
                f"{n_workers} of {workers} workers: the limits leave no room for more, or the system does not"
            )
        address = f"[{host}]" if ":" in host else host
        url = f"http://{address}:{listener.getsockname()[1]}"
        ready = partial(print, f"Serving {', '.join(opened)} at {url} (documents: {url}/docs)", flush=True)
        if n_workers == 1:
            _answer(opened, listener, ready, limits=limits, token=token, precision=precision)
            return
        del opened  # the children open them for themselves
        job = {
            "models": list(models),
            "token": token,
            "limits": asdict(each),
            "precision": precision,
            "n_workers": n_workers,
        }
        supervise(job, listener, n_workers, limits.drain_s, ready)


def work() -> None:
    """Be one of several workers; the job comes by standard input.

    Notes
    -----
    The program of the children that `serve_models` starts.
    """
    job = read_job()
    from headstart.interfaces.http.api import Share

    share = Share(
        n_threads=max(1, n_cores() // job["n_workers"]),
        n_lanes=max(1, min(4, n_cores()) // job["n_workers"]),  # one worker alone would have as many
        turn=Turn(Path(job["folder"]) / "large-picture"),
    )
    try:
        with socket.socket(fileno=job["listener"]) as listener:
            _answer(
                read_models(job["models"]),
                listener,
                partial(tell_parent, job),
                limits=Limits(**job["limits"]),
                token=job["token"],
                precision=job["precision"],
                share=share,
                lifeline=0,
            )
    except HeadstartError as error:
        tell_parent(job, str(error))


def _answer(
    models: dict[str, Model],
    listener: socket.socket,
    ready: Callable[[], object],
    *,
    limits: Limits,
    token: str | None,
    precision: str,
    share: Share | None = None,
    lifeline: int | None = None,
) -> None:
    """Answer in this process, until a signal comes."""
    from headstart.interfaces.http.api import make_app
    from headstart.interfaces.http.listening import run_app

    app = make_app(models, token=token, limits=limits, precision=precision, share=share)
    try:
        run_app(app, listener, limits, ready, lifeline)
    finally:
        app.close()


def read_models(words: Sequence[str]) -> dict[str, Model]:
    """Open the models that some words mean.

    Parameters
    ----------
    words : sequence of str
        ``FOLDER`` or ``NAME=FOLDER``.

    Returns
    -------
    dict of str to Model
        By name, in the order given.

    Raises
    ------
    SettingError
        If there is none, or a name is no name or given twice.
    ModelError
        If one cannot be opened.
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
                f"name {shown(given)!r} of model {shown(folder)!r} has signs that an address cannot, "
                "expected 1 to 64 of A-Z a-z 0-9 . _ -; give it one with NAME=FOLDER"
            )
        if given in found:
            raise SettingError(
                f"name {given!r} is given to {found[given]!r} and {folder!r}, expected one for each; "
                "give them with NAME=FOLDER"
            )
        found[given] = folder
    return {name: open_model(folder) for name, folder in found.items()}


def _n_workers(asked: int) -> int:
    """As many as asked; without being asked one a core, where processes can share a socket."""
    if not 0 <= asked <= _MOST_ASKED:
        raise SettingError(
            f"workers is {asked}, expected 1 to {_MOST_ASKED}, or 0 for one a core and at "
            f"most {MOST_WORKERS}; "
            "choose with --workers"
        )
    if os.name != "posix":
        return 1
    return asked or min(n_cores(), MOST_WORKERS)


def _warn(sentence: str) -> None:
    print(f"headstart: warning: {sentence}", file=sys.stderr)


def _check_token(token: str | None) -> None:
    if token is not None and (not token or not token.isascii() or not token.isprintable() or " " in token):
        raise SettingError(
            "token is empty or has signs that a header cannot carry, expected printable "
            "ASCII without spaces; "
            "make one with: openssl rand -hex 16"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listener(host: str, port: int) -> socket.socket:
    """A socket that is bound, so that the address is known before anything is said."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
            made.listen(BACKLOG)  # whoever comes before the loop runs waits instead of being refused
        except OSError:
            made.close()
            raise
    except (OSError, UnicodeError) as error:
        raise SettingError(
            f"address {shown(host)} port {port} cannot be had ({error}), expected one of "
            "this machine that is "
            "free; choose another with --host and --port"
        ) from error
    return made
