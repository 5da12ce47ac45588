"""Which names a request may use for this server.

A page of another site can reach a server on loopback under a name of its own, whose address it changes to
127.0.0.1 after it was loaded (DNS rebinding). It cannot do so with an IP address or with ``localhost``.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Collection, Iterable
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths that are answered under any name."""

_HOST = re.compile(r"(?:\[(?P<address>[^\[\]]+)\]|(?P<name>[^:\[\]]+))(?::[0-9]*)?")


class HostCheck:
    """Answers 421 to requests for another server.

    Args:
        allowed: names besides ``localhost``, ``*.localhost`` and IP addresses.
        any_name: whether every name is answered.
    """

    def __init__(self, allowed: Iterable[str], *, any_name: bool = False) -> None:
        self._allowed = frozenset(map(_normalized, allowed))
        self._any_name = any_name

    @classmethod
    def for_sockets(cls, allowed: Collection[str], sockets: Iterable[socket.socket]) -> HostCheck:
        """The check of a server that listens on these sockets; without ``allowed`` any name unless on loopback."""
        loopback = all(_is_loopback(each.getsockname()[0]) for each in sockets)
        return cls(allowed, any_name=not allowed and not loopback)

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Pass on a request for this server."""
        if request.path in PROBES or self._any_name:
            return await handler(request)
        hosts = request.headers.getall(hdrs.HOST, [])
        if "://" in request.raw_path:
            hosts = [*hosts, request.host]  # an absolute URL, which takes precedence over the header
        if hosts and all(map(self.allows, hosts)):
            return await handler(request)
        text = "unknown host name; add it to http.allowed_hosts\n"
        response = web.Response(status=HTTPStatus.MISDIRECTED_REQUEST, text=text)
        response.force_close()
        return response

    def allows(self, host: str) -> bool:
        """Whether a Host header names this server; its port is ignored."""
        match = _HOST.fullmatch(host.strip())
        if match is None or match["address"]:
            return _is_address(match["address"] if match else host.strip())
        name = _normalized(match["name"])
        return name == "localhost" or name.endswith(".localhost") or name in self._allowed or _is_address(name)


def _normalized(name: str) -> str:
    return name.lower().removesuffix(".")


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_loopback(text: str) -> bool:
    address = ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback
