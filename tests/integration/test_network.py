"""The client through a CONNECT proxy, and with a certificate authority of its own."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.clock import SystemClock
from service.config import Org, config_from
from service.errors import ConnectionFailedError, NotConnectedError, ProxyRejectedError
from service.genesys import make_client, transport
from service.model import Granularity, Query, Span
from service.simulator import SimulatedOrg, Simulator, SimulatorConfig
from tests.support.certificates import Authority, make_authority, serve_tls
from tests.support.connect_proxy import ConnectProxy

DAY = Span(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
QUERY = Query("acme", DAY, Granularity.DAILY, "UTC", (), 100, None, DAY)
HOSTS = {"base_url": "https://api.acme.example", "login_url": "https://login.acme.example"}
TARGETS = ["login.acme.example:443", "api.acme.example:443"]
PASSWORD = "p@ss:w/rd#1 50%"
VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.genesys.retry._FIRST_DELAY", 0.01)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorConfig(orgs={"acme": SimulatedOrg(flows=2)})) as simulator:
        yield simulator


@pytest.fixture
async def tls_port(simulator: Simulator, authority: Authority) -> AsyncIterator[int]:
    async with serve_tls(authority, int(simulator.base_url.rpartition(":")[2])) as port:
        yield port


def org(**changes: object) -> Org:
    section: dict[str, object] = {
        **HOSTS,
        "client_id": "acme",
        "client_secret": "simulated-secret",
        "requests_per_second": 100,
        "breaker": {"failures": 50},
        **changes,
    }
    return config_from({"database": {"dsn": "postgresql://127.0.0.1/none"}, "orgs": {"acme": section}}).orgs[
        "acme"
    ]


class Session:
    """An org's client and the reasons of its retries."""

    def __init__(self, org: Org) -> None:
        self.retries: list[str] = []
        self.client = make_client(
            org, self._emit, SystemClock(), lambda: None, lambda _seconds: None, lambda _date: None
        )

    def _emit(self, event: str, **context: object) -> None:
        if event == "retry_scheduled":
            self.retries.append(str(context["reason"]))

    async def scan(self) -> int:
        """The number of entries of one scan."""
        return sum([len(page.entries) async for page in self.client.scan(QUERY)])


async def scan(org: Org, times: int = 1) -> int:
    """The number of entries of the last of some scans by one client."""
    session = Session(org)
    try:
        for _ in range(times):
            entries = await session.scan()
        return entries
    finally:
        await session.client.close()


async def fail(org: Org) -> tuple[NotConnectedError, list[str]]:
    """The error of a scan, and the reasons of its retries."""
    session = Session(org)
    try:
        with pytest.raises(ConnectionFailedError) as caught:
            await session.scan()
    finally:
        await session.client.close()
    assert isinstance(caught.value, NotConnectedError), caught.value
    return caught.value, session.retries


@pytest.mark.parametrize("variable", ["", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
async def test_token_and_queries_through_a_proxy(
    variable: str, tls_port: int, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One tunnel to each server, whichever names the proxy; the tunnels are used again."""
    async with ConnectProxy(tls_port) as proxy:
        if variable:
            monkeypatch.setenv(variable, proxy.url() if variable == "HTTPS_PROXY" else proxy.host)
        own = {} if variable else {"proxy": proxy.url()}
        assert await scan(org(ca_file=str(authority.ca_file), **own), times=2) > 0
        assert proxy.targets == TARGETS


@pytest.mark.parametrize("userinfo", [f"us er:{PASSWORD}", "us%20er:p%40ss%3Aw%2Frd%231%2050%25"])
async def test_a_proxy_with_a_password(userinfo: str, tls_port: int, authority: Authority) -> None:
    """The password may have any character, percent-encoded or not; the servers do not receive it."""
    async with ConnectProxy(tls_port, credentials=f"us er:{PASSWORD}") as proxy:
        assert await scan(org(proxy=proxy.url(userinfo), ca_file=str(authority.ca_file))) > 0
        assert (proxy.targets, proxy.refused) == (TARGETS, 0)
        assert not any(b"Authorization: Bearer" in request for request in proxy.requests)


async def test_a_proxy_by_https(tls_port: int, authority: Authority) -> None:
    """The proxy's own certificate is verified with the same authorities."""
    async with ConnectProxy(tls_port, authority=authority) as proxy:
        assert await scan(org(proxy=proxy.url(), ca_file=str(authority.ca_file))) > 0
        error, _ = await fail(org(proxy=proxy.url()))
        assert f"the certificate of {proxy.url()} was not accepted" in str(error)
        assert "orgs.acme.ca_file" in error.hint


async def test_loopback_is_reached_directly(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the org's proxy nor the environment's is used for loopback."""
    async with ConnectProxy(status=403) as proxy:
        for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url())
        for url in (simulator.base_url, simulator.base_url.replace("127.0.0.1", "localhost")):
            assert await scan(org(proxy=proxy.url(), base_url=url, login_url=url)) > 0
        assert proxy.targets == []


async def test_an_exempt_host(tls_port: int, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_PROXY is applied to each URL; the error of the direct connection names it."""
    async with ConnectProxy(tls_port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url())
        monkeypatch.setenv("NO_PROXY", "other.example, API.acme.example")
        error, _ = await fail(org(ca_file=str(authority.ca_file)))
        assert set(proxy.targets) == {"login.acme.example:443"}
        assert "NO_PROXY exempts api.acme.example from the proxy in HTTPS_PROXY" in error.hint


@pytest.mark.parametrize(
    ("given", "status", "words", "hint"),
    [
        ("", 407, "407 Proxy Authentication Required", "set the proxy's user and password in orgs.acme.proxy"),
        ("user:wrong-one", 407, "407 Proxy Authentication", "correct the proxy's user and password"),
        ("user:wrong-one", 403, "403 Forbidden", "allow connections to login.acme.example:443 on the proxy"),
        ("user:wrong-one", 405, "405 Method Not Allowed", "allow connections to login.acme.example:443"),
    ],
)
async def test_a_proxy_that_refuses(given: str, status: int, words: str, hint: str) -> None:
    """One attempt, and an error that names the proxy without the password, and says what to do."""
    async with ConnectProxy(credentials="user:right-one" * (status == 407), status=status) as proxy:
        error, retries = await fail(org(proxy=proxy.url(given)))
        assert isinstance(error, ProxyRejectedError)
        assert (proxy.refused, retries) == (1, [])
    assert f"the proxy http://{proxy.host} refused a connection to login.acme.example:443: HTTP {words}" in str(
        error
    )
    assert hint in error.hint
    for secret in ("wrong-one", "right-one", "user:", "dXNlcj"):
        assert secret not in f"{error} {error.hint}".replace("USER:PASSWORD", "")


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ({"status": 503}, "refused a connection to login.acme.example:443: HTTP 503"),
        ({"hangs": True}, "no connection to login.acme.example:443 through the proxy"),
        ({"answer": b"SSH-2.0-OpenSSH\r\n"}, "did not answer in HTTP"),
        ({"answer": b"HTTP/1.1 200 OK\r\n\r\nnot TLS"}, "the TLS handshake with login.acme.example:443 through"),
        ({"answer": b"HTTP/1.1 "}, "closed the connection to login.acme.example:443"),
    ],
)
async def test_a_proxy_that_fails(faults: dict[str, object], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request is retried, and the error names the proxy without the password."""
    monkeypatch.setattr(transport, "CONNECT_TIMEOUT", 0.3)
    async with ConnectProxy(**faults) as proxy:  # type: ignore[arg-type]
        error, retries = await fail(org(proxy=proxy.url("user:secret-one")))
        assert proxy.refused == 5
    assert len(retries) == 4
    assert words in str(error)
    assert f"http://{proxy.host}" in str(error)
    assert "orgs.acme.proxy" in error.hint or "the proxy" in error.hint
    assert "secret-one" not in f"{error} {error.hint} {retries}"


async def test_a_time_limit_while_the_proxy_hangs() -> None:
    """The time limit of a request that was not sent is reported as no connection."""
    async with ConnectProxy(hangs=True) as proxy:
        error, _ = await fail(org(proxy=proxy.url(), query_timeout="PT0.2S", breaker={"failures": 1}))
        assert proxy.refused == 1
    assert "no connection to login.acme.example:443 through the proxy" in str(error)


async def test_no_proxy_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says that the proxy cannot be reached, and which variable names it."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv("HTTPS_PROXY", url)
    error, _ = await fail(org(breaker={"failures": 1}))
    assert f"cannot connect to the proxy {url}" in str(error)
    assert "check HTTPS_PROXY" in error.hint


async def test_no_proxy_is_set() -> None:
    """The error of a direct connection says that no proxy is set; on loopback it does not."""
    error, _ = await fail(org(breaker={"failures": 1}))
    assert "no proxy is set: if this network requires one, set orgs.acme.proxy or HTTPS_PROXY" in error.hint
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    error, _ = await fail(org(base_url=url, login_url=url, breaker={"failures": 1}))
    assert "the host does not respond" in error.hint
    assert "proxy" not in error.hint


async def test_a_ca_file_beside_the_systems(
    tls_port: int, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Certificates of both the system's authorities and of ``ca_file`` are accepted."""
    other = make_authority(tmp_path, "other")
    async with ConnectProxy(tls_port) as proxy:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))  # the system's
        assert await scan(org(proxy=proxy.url(), ca_file=str(other.ca_file))) > 0
        monkeypatch.setenv("SSL_CERT_FILE", str(other.ca_file))
        assert await scan(org(proxy=proxy.url(), ca_file=str(authority.ca_file))) > 0


async def test_an_unknown_authority(
    tls_port: int, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says which key takes the certificate authority, or that the file lacks it."""
    async with ConnectProxy(tls_port) as proxy:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing"))
        error, _ = await fail(org(proxy=proxy.url(), breaker={"failures": 1}))
        assert "the certificate of login.acme.example:443 was not accepted: " in str(error)
        assert "set orgs.acme.ca_file to a PEM file" in error.hint
        assert "SSL_CERT_FILE names a file that does not exist" in error.hint
        other = make_authority(tmp_path, "other")
        error, _ = await fail(org(proxy=proxy.url(), ca_file=str(other.ca_file), breaker={"failures": 1}))
        assert "orgs.acme.ca_file does not contain the certificate authority" in error.hint
        url = "https://elsewhere.example"
        wrong = org(proxy=proxy.url(), ca_file=str(authority.ca_file), breaker={"failures": 1}, login_url=url)
        error, _ = await fail(wrong)
        assert "it is for another host" in error.hint


async def test_a_bundle_with_comments(tls_port: int, authority: Authority, tmp_path: Path) -> None:
    """Comments, a key and a byte order mark beside the certificates are ignored."""
    bundle = tmp_path / "bundle.pem"
    key = authority.server_file.read_bytes().partition(b"-----END PRIVATE KEY-----\n")
    certificate = authority.ca_file.read_bytes().replace(b"\n", b"\r\n")
    bundle.write_bytes("\ufeff# Tanúsítvány\n".encode() + key[0] + key[1] + certificate)
    async with ConnectProxy(tls_port) as proxy:
        assert await scan(org(proxy=proxy.url(), ca_file=str(bundle))) > 0
