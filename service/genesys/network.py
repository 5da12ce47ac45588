"""How an org's servers are reached: directly or through a proxy, and which certificates are accepted.

A connection that cannot be established is described here, from the type of the error alone: a proxy's own words
may repeat its password.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

import aiohttp

from service.config import Proxy, Route
from service.errors import NotConnectedError, ProxyRejectedError

_DIRECT = Route()
_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21})
"""OpenSSL's codes (``x509_vfy.h``) where the issuer is not known, or signed itself and is not trusted."""
_NOT_YET_VALID, _EXPIRED, _OTHER_HOST = 9, 10, frozenset({62, 64})
_TEMPORARY = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})

_DIRECT_HINTS = {
    re.compile(r"(?i)dns|name or service|nodename|name resolution|getaddrinfo"): (
        "the host name does not resolve: check region (or base_url and login_url) and this machine's DNS"
    ),
    re.compile(r"(?i)refused|connect call failed|unreachable|timeout|timed? ?out|no connection within"): (
        "the host does not respond: check region (or base_url and login_url), and firewalls between"
    ),
    re.compile(r"(?i)ssl|tls"): "the TLS handshake failed: check the URL, and proxies between",
}


@dataclass(frozen=True)
class Network:
    """How the servers of one org are reached.

    Attributes:
        key: the org's section, such as ``orgs.acme``.
        routes: by the host and port of a URL.
        certificates: certificate authorities beside the system's, as PEM; empty for the system's alone.
        cert_file: the file that replaces the system's certificate authorities (``SSL_CERT_FILE``), or empty.
    """

    key: str = "orgs.NAME"
    routes: Mapping[str, Route] = field(default_factory=lambda: MappingProxyType({}))
    certificates: str = field(default="", repr=False)
    cert_file: str = ""

    def route(self, url: str) -> Route:
        """The route to a URL."""
        return self.routes.get(urlsplit(url).netloc, _DIRECT)

    def tls(self) -> ssl.SSLContext | bool:
        """What verifies certificates; True for the system's certificate authorities alone."""
        if not self.certificates:
            return True
        context = ssl.create_default_context()
        context.load_verify_locations(cadata=self.certificates)
        # As curl and Go do: a company's own CA often lacks an extension, or only its intermediate is given.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    def not_connected(self, error: Exception, url: str, direct_message: str) -> NotConnectedError:
        """The error for a request that was not sent, because there was no connection.

        Args:
            error: why; a TimeoutError where the time limit was exceeded.
            url: the request's URL.
            direct_message: the message where no proxy and no certificate is involved.
        """
        target = _address(url)
        proxy, hint = self.route(url)
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            of_proxy = proxy is not None and error.host == proxy.host
            return self._untrusted(error.certificate_error, proxy.url if proxy and of_proxy else target)
        if proxy is None:
            hints = (each for pattern, each in _DIRECT_HINTS.items() if pattern.search(direct_message))
            return NotConnectedError(direct_message, hint="; ".join(filter(None, (next(hints, ""), hint))))
        if isinstance(error, aiohttp.ClientHttpProxyError):
            return _rejection(error.status, proxy, target)
        name = f"the proxy {proxy.url}"
        check = f"check {proxy.source}, and that the proxy is in service"
        match error:
            case aiohttp.ClientConnectorError() if error.host == proxy.host:
                message = f"cannot connect to {name}: {_reason(error)}"
            case aiohttp.ClientConnectorError():
                message = f"the TLS handshake with {target} through {name} failed: {_reason(error)}"
                check = f"check that the proxy allows connections to {target}"
            case TimeoutError():
                message = f"no connection to {target} through {name} in time"
                check += f" and allows connections to {target}"
            case aiohttp.ServerDisconnectedError() | ConnectionError():
                message = f"{name} closed the connection to {target}"
                check += f" and allows connections to {target}"
            case aiohttp.ClientResponseError():
                message = f"{name} did not answer in HTTP"
            case _:
                message = f"{name} failed: {type(error).__name__}"
        return NotConnectedError(f"connection failed: {message}", hint=check)

    def _untrusted(self, error: Exception, subject: str) -> NotConnectedError:
        code = getattr(error, "verify_code", None)
        reason = getattr(error, "verify_message", "") or "certificate verify failed"
        hint = f"check the certificate of {subject}"
        if code in _UNKNOWN_ISSUER:
            hint = (
                f"{self.key}.ca_file does not contain the certificate authority that issued it; add it to the file"
                if self.certificates
                else f"set {self.key}.ca_file to a PEM file with the certificate authority that issued it; a proxy"
                " that inspects TLS has its own"
            )
            if self.cert_file and not Path(self.cert_file).is_file():
                hint += "; SSL_CERT_FILE names a file that does not exist"
        elif code in (_NOT_YET_VALID, _EXPIRED):
            hint += ", and this machine's clock"
        elif code in _OTHER_HOST:
            hint = "it is for another host: check region (or base_url and login_url), and proxies between"
        return NotConnectedError(
            f"connection failed: the certificate of {subject} was not accepted: {reason}", hint=hint
        )


def _rejection(status: int, proxy: Proxy, target: str) -> NotConnectedError:
    """The error for a proxy's response to CONNECT."""
    title = f"HTTP {status}"
    with suppress(ValueError):
        title += f" {HTTPStatus(status).phrase}"
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        fix = "correct" if proxy.authorization else "set"
        hint = (
            f"{fix} the proxy's user and password in {proxy.source}, as http://USER:PASSWORD@HOST:PORT; only Basic"
            " authentication is supported"
        )
    else:
        hint = f"allow connections to {target} on the proxy, or check {proxy.source}"
    message = f"connection failed: the proxy {proxy.url} refused a connection to {target}: {title}"
    if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _TEMPORARY:
        return ProxyRejectedError(message, hint=hint)
    return NotConnectedError(message, hint=hint)


def _reason(error: aiohttp.ClientConnectorError) -> str:
    """The system's words, without addresses."""
    cause = error.os_error
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its host name does not resolve"
    return getattr(cause, "reason", None) or cause.strerror or type(cause).__name__


def _address(url: str) -> str:
    parts = urlsplit(url)
    default = 443 if parts.scheme == "https" else 80
    return f"{parts.hostname}:{parts.port or default}"
