"""The image that buildah builds from the Dockerfile, driven as a container engine would: `make image`.

Needs root, buildah and the base image. Where that cannot be pulled: `make image BASE=localhost/base`.
pip inside the build uses this machine's index and certificates. The image has the extra `export` besides, so that
the export runs too.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.dockerfile import ROOT, stages

pytestmark = pytest.mark.image
BUILDAH = shutil.which("buildah")
BASE = os.environ.get("BASE") or stages()[0][0].text.split()[0]
NAME = "localhost/flow-outcomes-test"
BARE = "localhost/flow-outcomes-test-base"
WAREHOUSE = "file:///var/lib/flow-outcomes/warehouse"
TIMEOUT = 120.0
LABELS = {"VERSION": "1.2.3", "REVISION": "0123abc", "SOURCE": "a repository"}
# what an engine does: namespaces, a read-only root, /proc, /dev, an empty /tmp; the daemon becomes PID 1
CONTAIN = """
mount --make-rprivate /
mount --bind "$0" "$0"
mount --bind "$1" "$0/etc/flow-outcomes"
mount --bind "$1/volume" "$0/var/lib/flow-outcomes"
mount -o remount,bind,ro "$0"
mount -t proc proc "$0/proc"
mount --bind /dev "$0/dev"
root=$0; shift
cd /
exec chroot --userspec=10001:10001 "$root" env -i "$@"
"""


def buildah(*words: str) -> str:
    assert BUILDAH is not None
    done = subprocess.run([BUILDAH, *words], capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout.strip()


def pip_settings(folder: Path) -> list[str]:
    """Return the options that give pip inside the build this machine's index and certificates."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    pairs = dict(line.split("=", 1) for line in listed.splitlines() if "=" in line)
    values = {name.rpartition(".")[2]: value.strip("'") for name, value in pairs.items()}
    kept = {name: values[name] for name in ("index-url", "cert", "timeout", "trusted-host") if name in values}
    (folder / "pip.conf").write_text("[global]\n" + "".join(f"{name} = {kept[name]}\n" for name in kept))
    files = {str(folder / "pip.conf"): "/etc/pip.conf"} | ({kept["cert"]: kept["cert"]} if "cert" in kept else {})
    return [f"--volume={source}:{target}:ro" for source, target in files.items()]


def strip_bytecode() -> None:
    """Make an image of the base without its bytecode, as python's own image is."""
    container = buildah("from", BASE)
    for file in Path(buildah("mount", container)).rglob("*.pyc"):
        file.unlink()
    buildah("commit", "--rm", container, BARE)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The built image's description, with the mounted tree of a container as ``root``."""
    if BUILDAH is None or os.geteuid():
        pytest.skip("buildah cannot run here: as root, apt-get install buildah")
    if subprocess.run([BUILDAH, "pull", "--policy", "missing", BASE], capture_output=True, check=False).returncode:
        pytest.skip(f"the base image {BASE} cannot be had: name another one with BASE")
    given = {"BASE": BARE, "REQUIREMENTS": "requirements-export.txt", **LABELS}
    arguments = [f"--build-arg={name}={value}" for name, value in given.items()]
    options = pip_settings(tmp_path_factory.mktemp("pip"))
    container = ""
    try:
        strip_bytecode()
        buildah("build", "--isolation=chroot", "--format=docker", f"--tag={NAME}", *arguments, *options, str(ROOT))
        described = json.loads(buildah("inspect", "--type", "image", NAME))
        container = buildah("from", NAME)
        root = buildah("mount", container)
        (Path(root) / "etc" / "flow-outcomes").mkdir()  # an engine creates the mount's target
        yield {**described["Docker"]["config"], "root": root}
    finally:
        if container:
            buildah("rm", container)
        subprocess.run([BUILDAH, "rmi", NAME, BARE], capture_output=True, check=False)


def start(image: dict[str, Any], folder: Path, *command: str, **environment: str) -> subprocess.Popen[str]:
    """Start a command in a container of the image, with the folder at /etc/flow-outcomes and its volume."""
    folder.chmod(0o755)
    volume = folder / "volume"
    volume.mkdir(exist_ok=True)
    os.chown(volume, 10001, 10001)
    variables = [*image["Env"], *(f"{name}={value}" for name, value in environment.items())]
    return subprocess.Popen(
        [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-ec", CONTAIN),
            *(image["root"], str(folder), *variables, *command),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def first_process(process: subprocess.Popen[str]) -> int:
    """The pid of the container's PID 1; a kill of the process itself does not reach it, as it changed its user."""
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())


def run(image: dict[str, Any], folder: Path, *command: str, **environment: str) -> str:
    """Run a command in a container to its end; its standard output."""
    process = start(image, folder, *command, **environment)
    out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, out + err
    return out


def configure(folder: Path, url: str = "http://127.0.0.1:1", secret: str = "a-secret", **other: object) -> None:
    """Write the configuration of an org."""
    org = {"base_url": url, "login_url": url, "client_id": "acme", "client_secret": secret}
    jobs = {"daily": {"since": "P2D"}}
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump({"orgs": {"acme": org}, "jobs": jobs, **other}))
    config.chmod(0o644)


@contextmanager
def running(image: dict[str, Any], folder: Path, dsn: str) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """Run the image's default command; yields the process, the pid of the container's PID 1, and the address."""
    configure(folder)
    command = [*image["Entrypoint"], *image["Cmd"]]
    process = start(image, folder, *command, FLOW_OUTCOMES_DATABASE__DSN=dsn, FLOW_OUTCOMES_HTTP__PORT="0")
    try:
        assert process.stdout is not None
        started = json.loads(process.stdout.readline() or "{}")
        assert started.get("event") == "daemon_started", process.communicate(timeout=TIMEOUT)
        yield process, first_process(process), f"http://127.0.0.1:{started['http_address'].rpartition(':')[2]}"
    finally:
        process.kill()
        process.communicate()


def read(process: subprocess.Popen[str], event: str) -> None:
    """Read the log up to an event."""
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == event:
            return
    pytest.fail(f"the log ended without {event}")


def test_the_labels_and_the_health_check(image: dict[str, Any]) -> None:
    """The image has the labels of the build, the numeric user and, in docker's format, the health check."""
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in image["Labels"].items()}
    assert {name.lower(): value for name, value in LABELS.items()}.items() <= labels.items()
    assert labels["licenses"] == "Apache-2.0"
    assert image["User"] == "10001:10001"
    assert "/healthz" in image["Healthcheck"]["Test"][-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
def test_signals_reach_the_first_process(
    image: dict[str, Any], tmp_path: Path, empty_database: str, number: signal.Signals
) -> None:
    """As PID 1, unprivileged and on a read-only root, it becomes ready, reloads, and exits with 0."""
    with running(image, tmp_path, empty_database) as (process, first, address):
        status = Path(f"/proc/{first}/status").read_text()
        assert "\tflow-outcomes" in status or "\tpython" in status
        assert f"NSpid:\t{first}\t1\n" in status
        assert "\nUid:\t10001\t10001\t10001\t10001\n" in status
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                with urllib.request.urlopen(f"{address}/readyz", timeout=10):  # noqa: S310 - our own
                    break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.5)
        config = tmp_path / "config.yaml"
        config.write_text(config.read_text().replace("P2D", "P3D"))
        os.kill(first, signal.SIGHUP)
        read(process, "config_reloaded")
        port = address.rpartition(":")[2]
        run(image, tmp_path, *image["Healthcheck"]["Test"][1:], FLOW_OUTCOMES_HTTP__PORT=port)
        os.kill(first, number)
        _, errors = process.communicate(timeout=TIMEOUT)
        assert (process.returncode, errors) == (0, "")


def test_an_export_of_simulated_figures(image: dict[str, Any], tmp_path: Path, empty_database: str) -> None:
    """The image's simulator serves the image's `run --once`, and `export` writes the figures to a volume."""
    simulator = start(image, tmp_path, *image["Entrypoint"], "simulate")
    try:
        assert simulator.stdout is not None
        started = json.loads(simulator.stdout.readline())
        [org] = started["orgs"]
        configure(tmp_path, started["url"], org["client_secret"], export={"warehouse": WAREHOUSE})
        given = ("--config", "/etc/flow-outcomes/config.yaml")
        dsn = {"FLOW_OUTCOMES_DATABASE__DSN": empty_database}
        run(image, tmp_path, *image["Entrypoint"], "run", "--once", *given, **dsn)
        assert "flow_outcome: 1 month" in run(image, tmp_path, *image["Entrypoint"], "export", *given, **dsn)
        assert list((tmp_path / "volume" / "warehouse").rglob("*.parquet"))
    finally:
        os.kill(first_process(simulator), signal.SIGTERM)
        simulator.communicate(timeout=TIMEOUT)


def test_a_start_compiles_nothing(image: dict[str, Any], tmp_path: Path) -> None:
    """What the daemon imports has its bytecode, also where the base has none of the standard library."""
    lacking = (
        "import os, sys, service.cli.run, service.runtime.daemon as d; names = sorted(sys.modules)\n"
        "caches = {name: getattr(sys.modules[name], '__cached__', None) for name in names}\n"
        "print(*(name for name, file in caches.items() if file and not os.path.exists(file)))"
    )
    assert run(image, tmp_path, "python", "-c", lacking).split() == []
