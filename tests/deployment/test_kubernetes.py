"""config/kubernetes: the API's schemas, and further checks."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.config import load_config
from service.runtime.process import GRACE
from tests.support.dockerfile import ROOT, stages

FOLDER = ROOT / "config" / "kubernetes"
MONITORING = FOLDER / "components" / "monitoring"
EXAMPLE = ROOT / "config" / "kubernetes-example"
VERSIONS = ("1.30", kubernetes_validate.latest_version())
OBJECTS: list[dict[str, Any]] = [
    each
    for file in sorted(FOLDER.glob("*.yaml"))
    if file.name != "kustomization.yaml"
    for each in yaml.safe_load_all(file.read_text())
]
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())


def one(kind: str) -> dict[str, Any]:
    [match] = [each for each in OBJECTS if each["kind"] == kind]
    return match


SERVICES = [each for each in OBJECTS if each["kind"] == "Service"]
POD: dict[str, Any] = one("Deployment")["spec"]["template"]["spec"]
CONTAINER: dict[str, Any] = POD["containers"][0]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", OBJECTS, ids=lambda each: each["kind"])
def test_the_schema(manifest: dict[str, Any], version: str) -> None:
    """Each object is valid and has no unknown key."""
    kubernetes_validate.validate(manifest, version, strict=True)


def test_the_kustomization_is_complete() -> None:
    """The kustomization has every manifest except the example."""
    files = {file.name for file in FOLDER.glob("*.yaml")} - {"kustomization.yaml", "secrets.example.yaml"}
    assert set(KUSTOMIZATION["resources"]) == files
    assert [each["name"] for each in KUSTOMIZATION["images"]] == [CONTAINER["image"]]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_builds_it() -> None:
    """The output has every manifest, with the namespace and the image of the kustomization."""
    done = subprocess.run(["kubectl", "kustomize", str(FOLDER)], capture_output=True, text=True, check=False)  # noqa: S607
    assert done.returncode == 0, done.stderr
    built = {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}
    assert built.keys() == {each["kind"] for each in OBJECTS} - {"Secret"}
    assert {each["metadata"]["namespace"] for each in built.values()} == {KUSTOMIZATION["namespace"]}
    [image] = KUSTOMIZATION["images"]
    [container] = built["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"{image['newName']}:{image['newTag']}"
    for each in built.values():
        kubernetes_validate.validate(each, VERSIONS[-1], strict=True)


def build(folder: Path) -> list[dict[str, Any]]:
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)  # noqa: S607
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_the_example_is_a_complete_installation(tmp_path: Path) -> None:
    """The example has every object of the base, both secrets and the monitoring, and each is valid."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    built = build(tmp_path / "config" / EXAMPLE.name)
    kinds = [each["kind"] for each in built]
    assert sorted(kinds) == sorted([*(each["kind"] for each in OBJECTS), "PodMonitor", "PrometheusRule"])
    assert {each["metadata"]["namespace"] for each in built} == {"flow-outcomes"}
    for each in built:
        if each["kind"] not in {"PodMonitor", "PrometheusRule"}:  # their schemas are not Kubernetes'
            for version in VERSIONS:
                kubernetes_validate.validate(each, version, strict=True)
    [deployment] = [each for each in built if each["kind"] == "Deployment"]
    template = deployment["spec"]["template"]
    [monitor] = [each for each in built if each["kind"] == "PodMonitor"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert not template["metadata"].get("annotations")  # nothing scrapes the pods a second time
    secrets = {each["metadata"]["name"]: set(each["data"]) for each in built if each["kind"] == "Secret"}
    mounted = [volume["secret"]["secretName"] for volume in template["spec"]["volumes"]]
    assert [secrets[name] for name in mounted] == [{"config.yaml"}, {"acme"}]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_a_changed_configuration_replaces_the_pods(tmp_path: Path) -> None:
    """Another configuration changes the pods' template, so that they are replaced; a rotated secret does not."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    folder = tmp_path / "config" / EXAMPLE.name

    def template() -> dict[str, Any]:
        [deployment] = [each for each in build(folder) if each["kind"] == "Deployment"]
        spec: dict[str, Any] = deployment["spec"]["template"]
        return spec

    before = template()
    (folder / "secrets" / "acme").write_text("another secret")
    assert template() == before
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text() + "# changed\n")
    assert template() != before


def test_the_example_s_configuration_is_valid(tmp_path: Path) -> None:
    """The configuration is valid with the secrets where the pods mount them."""
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    text = (EXAMPLE / "config.yaml").read_text()
    assert mounts["clients"] in text
    (tmp_path / "config.yaml").write_text(text.replace(mounts["clients"], str(EXAMPLE / "secrets")))
    config = load_config(tmp_path / "config.yaml", {})
    assert set(config.orgs) == {file.name for file in (EXAMPLE / "secrets").iterdir()}


def test_the_monitoring_component() -> None:
    """The operator's rules are those of Prometheus, and its monitor scrapes the port that the pods name."""
    rule = yaml.safe_load((MONITORING / "prometheus-rule.yaml").read_text())
    assert rule["spec"] == yaml.safe_load((ROOT / "config" / "grafana" / "alerts.yaml").read_text())
    monitor = yaml.safe_load((MONITORING / "pod-monitor.yaml").read_text())
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("http", "/metrics")
    assert "http" in {port["name"] for port in CONTAINER["ports"]}


def test_two_replicas() -> None:
    """During a drained node or an update one of two pods keeps running."""
    assert one("Deployment")["spec"]["replicas"] == 2
    assert one("Deployment")["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 1
    assert one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_the_page_is_reachable_while_nothing_can_be_stored() -> None:
    """One service has only the ready pods, another one all of them."""
    published = {
        each["metadata"]["name"]: each["spec"].get("publishNotReadyAddresses", False) for each in SERVICES
    }
    assert published == {"flow-outcomes": False, "flow-outcomes-status": True}


def test_selectors_match_the_pods() -> None:
    """Every selector matches the labels of the pods."""
    labels = one("Deployment")["spec"]["template"]["metadata"]["labels"].items()
    selectors = [
        one("Deployment")["spec"]["selector"]["matchLabels"],
        one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(each["spec"]["selector"] for each in SERVICES),
        POD["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels for selector in selectors)


def test_no_service_links() -> None:
    """No variable of another service gets between the settings."""
    assert POD["enableServiceLinks"] is False


def test_termination_grace_period() -> None:
    """The grace period is longer than the daemon needs for what is in flight."""
    assert POD["terminationGracePeriodSeconds"] >= GRACE + 10


def test_probes() -> None:
    """Liveness depends on the process alone, readiness on the database too."""
    ports = {port["name"] for port in CONTAINER["ports"]}
    paths = {name: CONTAINER[name]["httpGet"] for name in ("livenessProbe", "readinessProbe", "startupProbe")}
    assert {name: each["path"] for name, each in paths.items()} == {
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
        "startupProbe": "/healthz",
    }
    assert {each["port"] for each in paths.values()} <= ports
    assert {each["spec"]["ports"][0]["targetPort"] for each in SERVICES} <= set(ports)


def test_it_is_confined() -> None:
    """The pod runs as the image's user, read-only, without privileges, with a memory limit."""
    user = next(each for each in stages()[-1] if each.word == "USER").text
    pod, container = POD["securityContext"], CONTAINER["securityContext"]
    assert f"{pod['runAsUser']}:{pod['runAsGroup']}" == user
    assert pod["runAsNonRoot"] is True
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["automountServiceAccountToken"] is False
    assert "memory" in CONTAINER["resources"]["limits"]


def test_secrets_are_files(tmp_path: Path) -> None:
    """No secret is in the environment; the mounted files are those of the configuration, which is valid."""
    assert "env" not in CONTAINER
    assert "envFrom" not in CONTAINER
    mounts = {mount["name"]: mount for mount in CONTAINER["volumeMounts"]}
    assert all("subPath" not in mount for mount in mounts.values())
    secrets = {each["metadata"]["name"]: each["stringData"] for each in OBJECTS if each["kind"] == "Secret"}
    assert {volume["secret"]["secretName"] for volume in POD["volumes"]} == set(secrets)
    text = secrets["flow-outcomes-config"]["config.yaml"]
    assert CONTAINER["args"][-1] == f"{mounts['config']['mountPath']}/config.yaml"
    for name, secret in secrets["flow-outcomes-clients"].items():
        (tmp_path / name).write_text(secret)
        text = text.replace(f"{mounts['clients']['mountPath']}/{name}", str(tmp_path / name))
    (tmp_path / "config.yaml").write_text(text)
    config = load_config(tmp_path / "config.yaml", {})
    assert {org.credentials().client_secret for org in config.orgs.values()} == {"the OAuth client's secret"}
