"""compose.yaml: what it starts, by profile, and that its configuration is one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from service.config import load_config
from tests.support.dockerfile import ROOT

TEXT = (ROOT / "compose.yaml").read_text()
TREE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = TREE["services"]


def test_what_starts() -> None:
    """PostgreSQL 17 and the daemon always, the simulator and the watching by profile."""
    profiles = {name: service.get("profiles", []) for name, service in SERVICES.items()}
    assert profiles == {
        "postgres": [],
        "flow-outcomes": [],
        "simulator": ["simulator"],
        "prometheus": ["monitoring"],
        "grafana": ["monitoring"],
    }
    assert SERVICES["postgres"]["image"] == "postgres:17"


def test_the_simulator_is_on_the_daemons_loopback() -> None:
    """Plain http is for loopback alone, so the two share a network namespace, and the daemon asks 127.0.0.1."""
    assert SERVICES["simulator"]["network_mode"] == "service:flow-outcomes"
    config = load_config(ROOT / "config" / "compose.yaml", SERVICES["flow-outcomes"]["environment"])
    port = SERVICES["simulator"]["command"][SERVICES["simulator"]["command"].index("--port") + 1]
    name, _, secret = SERVICES["simulator"]["command"][-1].partition(":")
    [org] = config.orgs.values()
    assert {org.api_url, org.token_url} == {f"http://127.0.0.1:{port}"}
    assert (org.credentials().client_id, org.credentials().client_secret) == (name, secret)


def test_the_daemon_is_confined() -> None:
    """Read-only, without rights, with time to drain, and reachable from this machine alone."""
    for name in ("flow-outcomes", "simulator"):
        assert SERVICES[name]["read_only"] is True
        assert SERVICES[name]["cap_drop"] == ["ALL"]
        assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]
    assert SERVICES["flow-outcomes"]["stop_grace_period"] == "30s"
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_no_password_stands_in_it() -> None:
    """The database's password comes from the environment, and nothing starts without it."""
    assert len(re.findall(r"\$\{POSTGRES_PASSWORD:\?", TEXT)) == 3
    dsn = SERVICES["flow-outcomes"]["environment"]["FLOW_OUTCOMES_DATABASE__DSN"]
    assert re.fullmatch(r"postgresql://outcomes@postgres/outcomes", dsn)


def test_what_it_names_is_there() -> None:
    """Files of this checkout, volumes, configs: nothing is named that is not there, and the contents are YAML."""
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", volume).split(":")[0]
            assert source in TREE["volumes"] or (ROOT / source).exists(), source
        assert {each["source"] for each in service.get("configs", [])} <= set(TREE["configs"])
    contents = {name: yaml.safe_load(each["content"]) for name, each in TREE["configs"].items()}
    [job] = contents["prometheus"]["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["flow-outcomes:8080"]}]
    [rules] = contents["prometheus"]["rule_files"]
    assert f"./config/grafana/{rules}:/etc/prometheus/{rules}:ro" in SERVICES["prometheus"]["volumes"]
    sources = {each["type"] for each in contents["grafana_datasources"]["datasources"]}
    dashboards = [json.loads(file.read_text()) for file in (ROOT / "config" / "grafana").glob("*.json")]
    assert dashboards
    for dashboard in dashboards:
        wanted = {each["query"] for each in dashboard["templating"]["list"] if each["type"] == "datasource"}
        assert wanted <= sources
    [provider] = contents["grafana_dashboards"]["providers"]
    assert f"./config/grafana:{provider['options']['path']}:ro" in SERVICES["grafana"]["volumes"]


def test_compose_itself_reads_it() -> None:
    """Every key is one that docker compose knows; it needs no engine for that."""
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run([docker, "compose", "version"], check=False, capture_output=True).returncode
    ):
        pytest.skip("docker compose is not here")
    command = [docker, "compose", "--profile", "*", "config", "--quiet"]
    environment = {**os.environ, "POSTGRES_PASSWORD": "given"}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
