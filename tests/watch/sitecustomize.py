"""Python imports this file as every process of a test starts: it notes and stops what leaves the machine.

An audit hook is told of each connection, name lookup, fork and file that is opened, before it happens. What
leaves the machine is refused, so that a test that fails sends nothing. Native code is not seen by audit
hooks: for that the tests look at the files left behind, and use strace where it is installed; on Linux the C
library itself tells of forks (not of vfork, which is safe beside threads). Each note is
a line of JSON in the folder $HEADSTART_WATCH.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading

_FOLDER = os.environ["HEADSTART_WATCH"]
_LOOKUPS = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"}
_SENT = {"socket.connect", "socket.sendto", "socket.sendmsg"}
_RUNTIMES = {"openvino", "onnxruntime"}
_MADE = {"os.mkdir": 0, "os.rename": 1, "os.link": 1, "os.symlink": 1, "os.truncate": 0}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_busy = threading.local()


def _is_loopback(host: object) -> bool:
    host = host.decode() if isinstance(host, bytes) else host
    return host in (None, "", "localhost", "::1", "0.0.0.0", "::") or str(host).startswith("127.")


def _note(kind: str, fact: object) -> None:
    line = json.dumps({"pid": os.getpid(), "kind": kind, "fact": str(fact), "program": sys.argv[:3]}) + "\n"
    file = os.open(os.path.join(_FOLDER, "notes.jsonl"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(file, line.encode())
    os.close(file)


def _refuse(kind: str, fact: object) -> None:
    _note(kind, fact)
    raise PermissionError(f"refused by the test: {kind} {fact}")


def _watch(event: str, facts: tuple) -> None:
    if event in _SENT:
        address = facts[1]
        if isinstance(address, tuple) and not _is_loopback(address[0]):
            _refuse("connection", address)
    elif event in _LOOKUPS:
        host = facts[0][0] if isinstance(facts[0], tuple) else facts[0]
        if not _is_loopback(host):
            _refuse("lookup", host)
    elif event in ("os.fork", "os.forkpty"):
        _note("fork", event)
    elif event == "open":
        path, _, flags = facts
        if isinstance(path, str | bytes) and isinstance(flags, int) and flags & _WRITES:
            _note("file", os.path.abspath(os.fsdecode(path)))
    elif event in _MADE:
        _note("file", os.path.abspath(os.fsdecode(facts[_MADE[event]])))


def _hook(event: str, facts: tuple) -> None:
    if getattr(_busy, "inside", False):
        return
    _busy.inside = True
    try:
        _watch(event, facts)
    finally:
        _busy.inside = False


class _Finder:
    """Finds nothing: notes that a runtime is about to be imported, and how many threads there are."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name in _RUNTIMES:
            _note("runtime", f"{name} {threading.active_count()}")


@ctypes.CFUNCTYPE(None)
def _before_fork() -> None:
    if not getattr(_busy, "inside", False):
        _busy.inside = True
        try:
            _note("fork", f"C library, {threading.active_count()} threads of Python")
        finally:
            _busy.inside = False


_register = getattr(ctypes.CDLL(None), "__register_atfork", None) if sys.platform == "linux" else None
if _register is not None:
    _register(_before_fork, None, None, None)
sys.addaudithook(_hook)
sys.meta_path.insert(0, _Finder)
