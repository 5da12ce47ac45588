"""Executes the Dockerfile's steps without an engine.

The program is installed into an empty folder, made read-only, and started by an unprivileged user. The image's
paths are moved below that folder, and the local Python replaces the image's.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.dockerfile import ROOT, Instruction, stages

pytestmark = pytest.mark.image
MOVED = ("/src", "/opt/", "/wheels")
TIMEOUT = 60.0
MAX_SIZE = 260_000_000  # bytes of the tree, including PostgreSQL's programs


class Image:
    """The result of the steps so far."""

    def __init__(self, root: Path, python: Path) -> None:
        self.root = root
        (root / "bin").mkdir()
        (root / "bin" / "python").symlink_to(python)
        version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout.split()[1]
        self._lib = f"/python{version.rpartition('.')[0]}/"
        self.environment = {"PATH": f"{root}/bin:/usr/bin:/bin", "HOME": str(root), "LC_ALL": "C.UTF-8"}
        self.environment |= {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
        self._folder = root

    def move_paths(self, text: str) -> str:
        """Return the text with the image's paths below the folder."""
        for path in MOVED:
            text = text.replace(path, f"{self.root}{path}")
        return text.replace("/python3.13/", self._lib)

    def execute(self, instruction: Instruction) -> None:
        """Execute one step."""
        match instruction.word:
            case "FROM" | "USER" | "EXPOSE" | "HEALTHCHECK" | "LABEL" | "ENTRYPOINT" | "CMD":
                return
            case "ENV" | "ARG":
                for pair in instruction.text.split():
                    name, _, value = pair.partition("=")
                    self.environment[name] = self.move_paths(value).replace("$PATH", self.environment["PATH"])
            case "WORKDIR":
                self._folder = Path(self.move_paths(instruction.text))
                self._folder.mkdir(parents=True)
            case "COPY":
                *names, to = instruction.text.split()
                for name in names:
                    self._copy(name, to)
            case "RUN":
                self._run(instruction)
            case _:
                pytest.fail(f"unknown instruction: {instruction.word}")

    def _copy(self, name: str, to: str) -> None:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, self._folder / to, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, self._folder / to)

    def _run(self, instruction: Instruction) -> None:
        try:
            command = [self.move_paths(word) for word in instruction.exec_form()]
        except ValueError:
            command = ["/bin/sh", "-ec", self.move_paths(instruction.text)]
        done = subprocess.run(
            command, cwd=self._folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{instruction.text}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """The result of the first stage, with the environment of the second."""
    root = Path(tempfile.mkdtemp(prefix="flow-outcomes-image-"))
    root.chmod(0o755)
    build, final = stages()
    try:
        result = Image(root, find_python())
        for instruction in build:
            result.execute(instruction)
        tree = root / "opt" / "flow-outcomes"
        subprocess.run(["/bin/chmod", "--recursive", "a-w", tree], check=True)
        for instruction in final:
            if instruction.word == "ENV":
                result.execute(instruction)
        yield result
    finally:
        subprocess.run(["/bin/chmod", "--recursive", "u+w", root], check=False)
        shutil.rmtree(root, ignore_errors=True)


def find_python() -> Path:
    """Find a Python that an unprivileged user may run."""
    for python in (Path(sys.executable).resolve(), Path("/usr/local/bin/python3"), Path("/usr/bin/python3")):
        if python.exists():
            done = subprocess.run(unprivileged(python, "-c", "import ensurepip"), check=False, capture_output=True)
            if done.returncode == 0:
                return python
    pytest.skip("there is no Python that an unprivileged user may run")


def unprivileged(*command: str | Path) -> list[str | Path]:
    """Return the command, run as an unprivileged user if this process is root."""
    if os.geteuid():
        return list(command)
    nobody = pwd.getpwnam("nobody")
    return ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", *command]


def listing(tree: Path) -> dict[str, tuple[int, float]]:
    """Return every file with its size and modification time."""
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime) for path in tree.rglob("*") if not path.is_dir()
    }


def test_start_and_stop(image: Image, empty_database: str) -> None:
    """As an unprivileged user with a read-only tree it becomes ready and healthy, and exits 0 on SIGTERM."""
    final = stages()[-1]
    [entry] = [each for each in final if each.word == "ENTRYPOINT"]
    [default] = [each for each in final if each.word == "CMD"]
    tree = image.root / "opt" / "flow-outcomes"
    config = image.root / "config.yaml"
    org = {
        "region": "mypurecloud.com",
        "client_id": "a",
        "client_secret": "a-secret",
        "base_url": "http://127.0.0.1:1",
    }
    config.write_text(yaml.safe_dump({"orgs": {"acme": {**org, "login_url": "http://127.0.0.1:1"}}}))
    before = listing(tree)
    environment = {
        **{key: value for key, value in image.environment.items() if not key.startswith("PIP_")},
        "HOME": "/nonexistent",
        "TMPDIR": "/nonexistent",
        "FLOW_OUTCOMES_DATABASE__DSN": empty_database,
        "FLOW_OUTCOMES_HTTP__PORT": "0",
    }
    command = [*entry.exec_form(), *default.exec_form()]
    assert command[-1] == "/etc/flow-outcomes/config.yaml"
    process = subprocess.Popen(
        unprivileged(tree / "bin" / command[0], *command[1:-1], config),
        cwd="/",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        started = json.loads(process.stdout.readline())
        assert started["event"] == "daemon_started"
        host, _, port = started["http_address"].rpartition(":")
        assert host == "0.0.0.0"  # noqa: S104 - as the image says
        wait_for(f"http://127.0.0.1:{port}/readyz")
        check_health(image, environment, port)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=TIMEOUT)
        assert (process.returncode, err) == (0, "")
    finally:
        process.kill()
        process.communicate()
    assert listing(tree) == before


def check_health(image: Image, environment: dict[str, str], port: str) -> None:
    """Execute the health check with the actual port."""
    [check] = [each for each in stages()[-1] if each.word == "HEALTHCHECK"]
    command = Instruction("CMD", check.text.partition("CMD ")[2]).exec_form()
    program = image.root / "opt" / "flow-outcomes" / "bin" / command[0]
    done = subprocess.run(
        unprivileged(program, *command[1:]),
        env={**environment, "FLOW_OUTCOMES_HTTP__PORT": port},
        check=False,
        capture_output=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr


def wait_for(url: str) -> None:
    """Wait until the URL answers 200."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own
                assert answer.status == 200
                return
        except OSError:
            assert time.monotonic() < deadline, url
            time.sleep(0.2)


def test_size_and_packages(image: Image) -> None:
    """The tree has no build tools and is small."""
    tree = image.root / "opt" / "flow-outcomes"
    packages = {path.name.partition("-")[0] for path in tree.glob("lib/python*/site-packages/*.dist-info")}
    assert "flow_outcomes" in packages
    assert not packages & {"pip", "setuptools", "hatchling", "pytest", "pyarrow"}
    assert sum(size for size, _ in listing(tree).values()) < MAX_SIZE
