"""What reading a configuration registers."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import pytest
import yaml

from service.cli.configuration import read
from service.cli.parser import parse
from service.telemetry import logs


def test_secrets_of_proxies_are_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The passwords of the org's proxy and of the environment's are in no log, in any spelling."""
    monkeypatch.setattr(logs, "_secrets", frozenset())
    monkeypatch.setenv("https_proxy", "http://user:environ%40ment-one@proxy:3128")
    monkeypatch.setenv("no_proxy", "")
    org = {"region": "mypurecloud.com", "client_id": "id", "client_secret": "a-secret"}
    orgs = {"acme": {**org, "proxy": "http://user:un@escaped-one@proxy:3128"}, "other": org}
    file = tmp_path / "flow-outcomes.yaml"
    file.write_text(yaml.safe_dump({"database": {"dsn": "postgresql://db/x"}, "orgs": orgs}))
    read(parse(["status", "--config", str(file)]))
    for password in ("un@escaped-one", "environ@ment-one", "environ%40ment-one", "escaped-one"):
        header = b64encode(f"user:{password}".encode()).decode()
        assert logs.redacted(f"before {password} after") == "before *** after"
        if "@" in password:
            assert logs.redacted(f"before {header} after") == "before *** after"
