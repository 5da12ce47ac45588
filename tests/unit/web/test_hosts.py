"""Which Host headers are answered."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from service.web.hosts import HostCheck

OWN = (
    *(
        "localhost",
        "LOCALHOST:8080",
        "localhost.",
        "a.b.localhost:1",
        "127.0.0.1",
        "127.0.0.1:8080",
        "10.1.2.3:80",
    ),
    *("[::1]", "[::1]:8080", "[fe80::1%eth0]:80", "::1", "Reports.Example.com", "reports.example.com.:443"),
)
FOREIGN = (
    *("evil.example", "evil.example:8080", "localhost.evil.example", "notlocalhost", "127.0.0.1.evil.example"),
    *("reports.example.com.evil.example", "xreports.example.com", "", ":8080", "localhost@evil.example", "[evil]"),
    *("localhost,evil.example", "localhost:80:evil.example", "localhost:x", "[::1]evil.example", "localhost/x"),
)


@pytest.mark.parametrize("host", OWN)
def test_own_names_are_answered(host: str) -> None:
    """Localhost, addresses and the configured names are this server, in any case, with any port, with a dot."""
    assert HostCheck(["reports.example.com"]).allows(host)


@pytest.mark.parametrize("host", FOREIGN)
def test_foreign_names_are_not(host: str) -> None:
    """Anything else is not."""
    assert not HostCheck(["reports.example.com"]).allows(host)


@pytest.mark.parametrize(("address", "any_name"), [("127.0.0.1", False), ("127.9.9.9", False), ("0.0.0.0", True)])  # noqa: S104
def test_any_name_is_answered_only_off_loopback(address: str, any_name: bool) -> None:
    """Without configured names a server on loopback answers only its own; with some, any server does."""
    with closing(socket.socket()) as listener:
        listener.bind((address, 0))
        assert HostCheck.for_sockets([], [listener])._any_name is any_name
        assert not HostCheck.for_sockets(["reports.example.com"], [listener])._any_name
