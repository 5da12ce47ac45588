"""The proxy for a URL: the org's own, or the environment's, found as other programs find it.

Two parsers never disagree about where a password ends, because only this module reads a proxy's URL: everything up
to its last ``@`` is user and password, percent-encoded or not.
"""

from __future__ import annotations

import os
from base64 import b64encode
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import getproxies, proxy_bypass

from service.config import values
from service.config.dsn import secrets_in

_EXPECTED = (
    "must be the URL of an http or https proxy, such as http://proxy.example:3128 or http://USER:PASSWORD@…"
)
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy; its ``repr`` has neither user nor password.

    Attributes:
        url: scheme, host and port.
        source: the key or the variable that names it.
        authorization: the value of ``Proxy-Authorization``, or empty.
        secrets: what must be in no text: the credentials, the password and its parts, the user where there is no
            password.
    """

    url: str
    source: str
    authorization: str = field(default="", repr=False)
    secrets: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def host(self) -> str:
        """The proxy's host, without the brackets of an IPv6 address."""
        return urlsplit(self.url).hostname or ""

    def url_with(self, placeholder: str) -> str:
        """The URL with a placeholder in place of user and password, where it has any."""
        return self.url.replace("://", f"://{placeholder}@") if self.authorization else self.url


class Route(NamedTuple):
    """How a URL is reached.

    Attributes:
        proxy: the proxy, or None for a direct connection.
        hint: why the connection is direct, for an operator whose network allows none; empty on loopback.
    """

    proxy: Proxy | None = None
    hint: str = ""


def parse_proxy(text: str, source: str, *, default_scheme: str = "") -> Proxy:
    """Parse the URL of a proxy.

    Args:
        text: the URL.
        source: the key or the variable that has it.
        default_scheme: the scheme of a text without one.

    Raises:
        ValueError: with a description of a valid value, which does not repeat the text.
    """
    text = text.strip()
    if "://" not in text and default_scheme:
        text = f"{default_scheme}://{text}"
    scheme, separator, rest = text.partition("://")
    if not separator or not text.isprintable():
        raise ValueError(_EXPECTED)
    if (scheme := scheme.lower()) not in _PORTS:
        raise ValueError(f"has an unsupported scheme: {_EXPECTED}; SOCKS is not supported")
    userinfo, _, address = rest.rpartition("@")
    url = f"{scheme}://{_address(address.removesuffix('/'), _PORTS[scheme])}"
    if not userinfo:
        return Proxy(url, source)
    user, _, password = (unquote_to_bytes(part) for part in userinfo.partition(":"))
    credentials = b64encode(user + b":" + password).decode()
    secrets = secrets_in(text) | {(password or user).decode("utf-8", "replace"), credentials}
    return Proxy(url, source, f"Basic {credentials}", secrets - {""})


def _address(text: str, default_port: int) -> str:
    """Host and port, as they stand in a URL."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname or "", parts.port
        host = f"[{ip_address(host)}]" if ":" in host else values.host_name(host)
    except ValueError:
        raise ValueError(_EXPECTED) from None
    if port == 0 or parts.netloc != text:
        raise ValueError(_EXPECTED)
    return f"{host}:{port or default_port}"


def route_to(url: str, own: Proxy | None, key: str) -> Route:
    """How a URL is reached.

    Loopback is always reached directly. The org's own proxy takes precedence over ``HTTPS_PROXY`` (``HTTP_PROXY``
    for plain http, ``ALL_PROXY`` for both), from which ``NO_PROXY`` exempts hosts.

    Args:
        url: the URL.
        own: the org's own proxy.
        key: the key of the org's own proxy.

    Raises:
        ValueError: the environment's proxy is invalid.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    if values.is_loopback(host) or host.endswith(".localhost"):
        return Route()
    if own is not None:
        return Route(own)
    proxies = getproxies()
    text = proxies.get(parts.scheme) or proxies.get("all")
    if not text:
        return Route(hint=f"no proxy is set: if this network requires one, set {key} or HTTPS_PROXY")
    variable = variable_for(parts.scheme)
    if proxy_bypass(f"{host}:{parts.port or _PORTS[parts.scheme]}") or _is_exempt(host, proxies.get("no", "")):
        return Route(hint=f"NO_PROXY exempts {host} from the proxy in {variable}; {key} overrides both")
    text = os.fsencode(text).decode("utf-8", "surrogateescape")
    return Route(parse_proxy(text, variable, default_scheme="http"))


def variable_for(scheme: str) -> str:
    """The variable that names the environment's proxy; the lower case takes precedence."""
    names = (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
    return next((name for name in names if os.environ.get(name)), "the system's settings")


def _is_exempt(host: str, no_proxy: str) -> bool:
    """Whether an IP address is in ``NO_PROXY``, or in a network there; urllib compares only the text."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    for entry in no_proxy.split(","):
        try:
            if address in ip_network(entry.strip().strip("[]"), strict=False):
                return True
        except ValueError:
            continue
    return False
