"""compose.yaml: its services by profile, and their configuration."""

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


def test_services_by_profile() -> None:
    """PostgreSQL 17 and the daemon always start; the simulator and the monitoring are profiles."""
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
    """Plain http is accepted for loopback alone, so simulator and daemon share a network namespace."""
    assert SERVICES["simulator"]["network_mode"] == "service:flow-outcomes"
    config = load_config(ROOT / "config" / "compose.yaml", SERVICES["flow-outcomes"]["environment"])
    port = SERVICES["simulator"]["command"][SERVICES["simulator"]["command"].index("--port") + 1]
    name, _, secret = SERVICES["simulator"]["command"][-1].partition(":")
    [org] = config.orgs.values()
    assert {org.api_url, org.token_url} == {f"http://127.0.0.1:{port}"}
    assert (org.credentials().client_id, org.credentials().client_secret) == (name, secret)


def test_the_daemon_is_confined() -> None:
    """It is read-only, without privileges, has time to drain, and is reachable from this machine alone."""
    for name in ("flow-outcomes", "simulator"):
        assert SERVICES[name]["read_only"] is True
        assert SERVICES[name]["cap_drop"] == ["ALL"]
        assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]
    assert SERVICES["flow-outcomes"]["stop_grace_period"] == "30s"
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_no_password() -> None:
    """The database's password comes from the environment, and is required."""
    assert len(re.findall(r"\$\{POSTGRES_PASSWORD:\?", TEXT)) == 3
    dsn = SERVICES["flow-outcomes"]["environment"]["FLOW_OUTCOMES_DATABASE__DSN"]
    assert re.fullmatch(r"postgresql://outcomes@postgres/outcomes", dsn)


def test_referenced_files_exist() -> None:
    """Every file, volume and config that is referenced exists, and configs are valid YAML."""
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
        datasources = {each["query"] for each in dashboard["templating"]["list"] if each["type"] == "datasource"}
        assert datasources <= sources
    [provider] = contents["grafana_dashboards"]["providers"]
    assert f"./config/grafana:{provider['options']['path']}:ro" in SERVICES["grafana"]["volumes"]


def test_docker_compose_accepts_it() -> None:
    """Docker compose knows every key; this needs no engine."""
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run([docker, "compose", "version"], check=False, capture_output=True).returncode
    ):
        pytest.skip("docker compose is not installed")
    command = [docker, "compose", "--profile", "*", "config", "--quiet"]
    environment = {**os.environ, "POSTGRES_PASSWORD": "given"}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
