"""The proxy and the certificate authorities of an org."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.config import Config, load_config
from service.config.effective import effective
from service.config.proxies import parse_proxy, route_to
from service.errors import ConfigError
from tests.support.certificates import make_authority

KEY = "orgs.acme.proxy"
VARIABLES = ("https_proxy", "http_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def load(folder: Path, environ: dict[str, str] | None = None, **org: object) -> Config:
    """The configuration of one org."""
    section: dict[str, Any] = {"region": "mypurecloud.com", "client_id": "id", "client_secret": "a-secret", **org}
    file = folder / "flow-outcomes.yaml"
    file.write_text(yaml.safe_dump({"database": {"dsn": "postgresql://db/x"}, "orgs": {"acme": section}}))
    return load_config(file, environ or {})


def faults(folder: Path, environ: dict[str, str] | None = None, **org: object) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        load(folder, environ, **org)
    return [(fault.key, fault.message) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("text", "url", "credentials"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128", ""),
        (" HTTPS://Proxy.Example/ ", "https://proxy.example:443", ""),
        ("http://[2001:DB8::1]:8080", "http://[2001:db8::1]:8080", ""),
        ("http://user:secret@proxy:3128", "http://proxy:3128", "user:secret"),
        ("http://us%40er:s%3Acret@proxy", "http://proxy:80", "us@er:s:cret"),
        ("http://user:p@ss:w/rd#1?%zz 50%@proxy:1", "http://proxy:1", "user:p@ss:w/rd#1?%zz 50%"),
        ("http://token@proxy:1", "http://proxy:1", "token:"),
        ("http://user:p\u00e4ss@proxy:1", "http://proxy:1", "user:p\u00e4ss"),
    ],
)
def test_a_proxy_is_parsed(text: str, url: str, credentials: str) -> None:
    """User and password may have any character; nothing shows them."""
    proxy = parse_proxy(text, KEY)
    assert proxy.url == url
    assert b64decode(proxy.authorization.removeprefix("Basic ")).decode() == credentials
    if credentials:
        assert credentials.rstrip(":").partition(":")[2] in proxy.secrets or credentials[:-1] in proxy.secrets
        assert "Basic" not in repr(proxy)
        assert "secret" not in repr(proxy)


@pytest.mark.parametrize(
    "text",
    [
        *("socks5://u:hidden-one@proxy:1080", "ftp://proxy:21", "proxy.example:3128", "//proxy:1", "proxy", ""),
        *("http://", "http://:3128", "http://proxy:0", "http://proxy:99999", "http://proxy:port"),
        *("http://u:hidden-one", "http://u:hidden/one", "http://proxy/path", "http://proxy:1?q=1", "http://a b:1"),
        *("http://u:hidden\none@proxy:1", "http://*.example:1"),
    ],
)
def test_an_invalid_proxy(text: str, tmp_path: Path) -> None:
    """It is a fault of its key, which does not repeat the value."""
    ((key, message),) = faults(tmp_path, proxy=text)
    assert key == KEY
    assert "http://proxy.example:3128" in message
    assert "hidden" not in message


def test_the_kind_of_value(tmp_path: Path) -> None:
    """A value that is no text is a fault, and null is none."""
    assert faults(tmp_path, proxy=3128)[0][0] == KEY
    assert load(tmp_path, proxy=None).orgs["acme"].proxy is None
    environ = {"FLOW_OUTCOMES_ORGS__ACME__PROXY": "", "FLOW_OUTCOMES_ORGS__ACME__CA_FILE": "null"}
    org = load(tmp_path, environ).orgs["acme"]
    assert (org.proxy, org.ca_file) == (None, None)


def test_the_password_is_in_no_text_of_the_configuration(tmp_path: Path) -> None:
    """Neither in its ``repr`` nor in its dump."""
    config = load(tmp_path, proxy="http://user:hidden-one@proxy:3128")
    assert "hidden-one" not in f"{config!r} {config.model_dump()} {config.model_dump_json()}"


@pytest.mark.parametrize("userinfo", ["user:pw", "user:p@ss/word#1", "token"])
def test_the_effective_configuration_hides_user_and_password(tmp_path: Path, userinfo: str) -> None:
    """A password of any length; a proxy without one is shown as it is."""
    shown = [
        effective(load(tmp_path, proxy=f"http://{each}proxy:3128"))["orgs"]["acme"]["proxy"]
        for each in (f"{userinfo}@", "")
    ]
    assert shown == ["http://***@proxy:3128", "http://proxy:3128"]


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({"HTTPS_PROXY": "http://a:1"}, "https://api.example", "http://a:1"),
        ({"https_proxy": "a:1", "HTTPS_PROXY": "http://b:1"}, "https://api.example", "http://a:1"),
        ({"HTTP_PROXY": "http://a:1"}, "https://api.example", None),
        ({"HTTP_PROXY": "http://a:1"}, "http://api.example", "http://a:1"),
        ({"ALL_PROXY": "http://a:1"}, "https://api.example", "http://a:1"),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "*"}, "https://api.example", None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "x.example, .Example"}, "https://API.example", None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "api.example:8443"}, "https://api.example", "http://a:1"),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "api.example:443"}, "https://api.example", None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "10.0.0.0/8"}, "https://10.1.2.3", None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "10.0.0.0/8,[2001:db8::1]"}, "https://[2001:db8::1]:1", None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "10.0.0.0/8"}, "https://11.1.2.3", "http://a:1"),
        ({"HTTPS_PROXY": "http://a:1"}, "https://127.8.8.8:9000", None),
        ({"HTTPS_PROXY": "http://a:1"}, "https://[::1]:9000", None),
        ({"ALL_PROXY": "http://a:1"}, "http://localhost:9000", None),
        ({"ALL_PROXY": "http://a:1"}, "https://gateway.localhost", None),
        ({}, "https://api.example", None),
    ],
)
def test_the_environments_proxy(
    environment: dict[str, str], url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It depends on the URL; the org's own takes precedence, but on loopback there is none."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    route = route_to(url, None, KEY)
    assert (route.proxy and route.proxy.url) == proxy
    own = route_to(url, parse_proxy("http://own:1", KEY), KEY).proxy
    assert (own is None) == any(each in url for each in ("localhost", "127.", "[::1]"))
    assert own is None or own.source == KEY


def test_a_fault_of_the_environments_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a fault where an org needs it, and names the variable without its value."""
    monkeypatch.setenv("all_proxy", "socks5h://user:hidden-one@proxy:1080")
    ((key, message),) = faults(tmp_path)
    assert key == "all_proxy"
    assert "unsupported scheme" in message
    assert "orgs.acme.proxy takes precedence" in message
    assert "hidden" not in message
    assert load(tmp_path, proxy="http://proxy:3128")
    assert load(tmp_path, base_url="http://127.0.0.1:1", login_url="http://127.0.0.1:1")
    assert {key for key, _ in faults(tmp_path, page_size=0)} == {"orgs.acme.page_size"}


def test_a_ca_file(tmp_path: Path) -> None:
    """It is relative to the configuration; each fault of it names the key."""
    authority = make_authority(tmp_path)
    org = load(tmp_path, ca_file="authority.pem").orgs["acme"]
    assert org.ca_file == authority.ca_file
    assert "BEGIN CERTIFICATE" in org.certificates
    assert "BEGIN" not in repr(org)
    pem = authority.ca_file.read_text()
    der = b64decode("".join(pem.splitlines()[1:-1]))
    for content, words in (
        (b"", "must be a PEM file"),
        (der, "openssl x509 -inform der"),
        (authority.server_file.read_bytes().partition(b"-----BEGIN CERT")[0], "has none"),
        (pem[:300].encode(), "damaged"),
        ((pem + pem.replace("M", "!")).encode(), "damaged"),
    ):
        (tmp_path / "bad.pem").write_bytes(content)
        ((key, message),) = faults(tmp_path, ca_file="bad.pem")
        assert (key, words in message) == ("orgs.acme.ca_file", True), message
    assert "cannot be read: No such file" in faults(tmp_path, ca_file="missing.pem")[0][1]
    assert "cannot be read: Is a directory" in faults(tmp_path, ca_file=str(tmp_path))[0][1]


def test_a_changed_ca_file(tmp_path: Path) -> None:
    """Another content under the same path is another configuration."""
    make_authority(tmp_path)
    before = load(tmp_path, ca_file="authority.pem")
    assert load(tmp_path, ca_file="authority.pem") == before
    make_authority(tmp_path)
    assert load(tmp_path, ca_file="authority.pem") != before
