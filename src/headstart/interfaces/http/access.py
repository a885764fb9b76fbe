"""Which requests may come in at all: their framing, the headers Host and Origin, and CORS for named origins.

A browser lets every web page send requests to this machine, and a name whose owner lets it resolve to
127.0.0.1 makes such a page look like the server's own (DNS rebinding). Without a token, only these headers
tell such requests from the user's.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from headstart.errors import SettingError
from headstart.interfaces.http.limits import RequestError, printable

__all__ = ["Access", "check_framing", "is_loopback", "make_access"]

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/@\[\]]+)(?::(\d{0,5}))?", re.ASCII)
_ORIGIN = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[^\s:/@\[\]?#*]+)(?::(\d{1,5}))?", re.ASCII)
_ANY, _NULL = "*", "null"
_PORTS = {"http": "80", "https": "443"}
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type",
    "Access-Control-Allow-Private-Network": "true",  # a public page may reach this machine
    "Access-Control-Max-Age": "600",
}
_USE_LOCALHOST = "use one of them, or set a token with --token"
_ALLOW_IT = "if it may use this server, allow it with --allow-origin"

Scope = Mapping[str, Any]
"""What ASGI says of a request."""


@lru_cache(
    64
)  # a client's requests name one host; so many are kept that names made up do not fill the memory
def is_loopback(address: str) -> bool:
    """Whether an address, or the name localhost, is reached from this machine only."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address == "localhost" or address.endswith(".localhost")
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def check_framing(scope: Scope) -> None:
    """Refuse a request whose end two programs may see at different places; the connection is closed."""
    names = [key for key, _ in scope["headers"]]
    if b"transfer-encoding" not in names:
        return
    if b"content-length" in names or scope.get("http_version") == "1.0":
        what = "both content-length and transfer-encoding" if b"content-length" in names else "HTTP/1.0"
        raise RequestError(
            400,
            f"request has {what}, expected one way to say where its body ends; send one of the two headers",
            headers={"Connection": "close"},
        )


@dataclass(frozen=True)
class Access:
    """Who may send requests.

    ``own_name`` is the host that the server was started with, None if requests may use any name for it.
    ``allowed`` are the origins of web pages that may read responses; ``closed`` refuses all other pages.
    ``use_name`` and ``use_origin`` end the sentences of the errors.
    """

    own_name: str | None
    closed: bool
    allowed: frozenset[str] = frozenset()
    use_name: str = _USE_LOCALHOST
    use_origin: str = _ALLOW_IT

    def check(self, scope: Scope) -> None:
        """`RequestError` (403) for a name or a web page that is not allowed."""
        hosts, origins = _values(scope, b"host"), _values(scope, b"origin")
        if self.own_name is not None and not all(map(self._is_own, hosts)):
            raise RequestError(
                403,
                f"host {printable(hosts[0])!r} is no name of this machine, expected localhost or 127.0.0.1; "
                f"{self.use_name}",
            )
        if not self.closed or not origins:
            return
        if len(origins) > 1 or not (self._may_read(origins[0]) or _is_same(origins[0], hosts)):
            raise RequestError(
                403,
                f"origin {printable(origins[0])!r} is another web page, expected the server's own pages or a "
                f"program; {self.use_origin}",
            )

    def headers(self, scope: Scope) -> dict[str, str]:
        """Headers of every response, by which a browser lets a page of an allowed origin read it."""
        plain = {"X-Content-Type-Options": "nosniff"}
        if not self.allowed:
            return plain
        origins = _values(scope, b"origin")
        if len(origins) != 1 or not self._may_read(origins[0]):
            return {**plain, "Vary": "Origin"}
        return {
            **plain,
            "Vary": "Origin",
            "Access-Control-Allow-Origin": origins[0],
            "Access-Control-Expose-Headers": "Retry-After",
        }

    def preflight(self, scope: Scope) -> dict[str, str] | None:
        """Headers that answer a browser that asks first, None for any other request."""
        origins = _values(scope, b"origin")
        if scope["method"] != "OPTIONS" or not _values(scope, b"access-control-request-method"):
            return None
        return dict(_PREFLIGHT) if len(origins) == 1 and self._may_read(origins[0]) else None

    def _may_read(self, origin: str) -> bool:
        return _ANY in self.allowed or origin.lower() in self.allowed

    def _is_own(self, host: str) -> bool:
        found = _HOST.fullmatch(host.lower())
        name = found[1].strip("[]").removesuffix(".") if found else ""
        return is_loopback(name) or name == self.own_name


def make_access(
    host: str, address: str, *, allow_origins: Sequence[str] = (), token: str | None = None
) -> Access:
    """The access to a server that was started with a host and listens at an address of this machine."""
    allowed = frozenset(_checked(one) for one in allow_origins)
    local = token is None and is_loopback(address)
    return Access(host.lower() if local else None, token is None, allowed)


def _checked(origin: str) -> str:
    """An origin as browsers send it; SettingError if it is none."""
    if origin in (_ANY, _NULL):
        return origin
    found = _ORIGIN.fullmatch(origin.lower().removesuffix("/"))
    if found is None:
        raise SettingError(
            f"origin {printable(origin)!r} is not the origin of a web page, expected scheme://host or "
            "scheme://host:port such as https://example.com; correct --allow-origin"
        )
    scheme, name, port = found.groups()
    return f"{scheme}://{name}" if port in (None, _PORTS[scheme]) else f"{scheme}://{name}:{port}"


def _is_same(origin: str, hosts: Iterable[str]) -> bool:
    """Whether an origin is the server's own, by the name that the request used for it."""
    page = _ORIGIN.fullmatch(origin.lower())
    if page is None:
        return False
    default = _PORTS[page[1]]
    for host in hosts:
        used = _HOST.fullmatch(host.lower())
        if used is not None and (used[1], used[2] or default) == (page[2], page[3] or default):
            return True
    return False


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]
