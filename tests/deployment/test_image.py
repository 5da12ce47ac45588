"""The Dockerfile's steps carried out without an engine.

It is installed into an empty folder and started from there, the tree read-only, as an ordinary user. The image's
paths are moved under that folder, and the Python at hand takes the place of the image's.
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
PATIENCE = 60.0
MOST = 260_000_000  # bytes that the tree may take; PostgreSQL's programs are a good part of it


class Image:
    """What the steps have made so far."""

    def __init__(self, root: Path, python: Path) -> None:
        self.root = root
        (root / "bin").mkdir()
        (root / "bin" / "python").symlink_to(python)
        version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout.split()[1]
        self._lib = f"/python{version.rpartition('.')[0]}/"
        self.environment = {"PATH": f"{root}/bin:/usr/bin:/bin", "HOME": str(root), "LC_ALL": "C.UTF-8"}
        self.environment |= {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
        self._folder = root

    def moved(self, text: str) -> str:
        """The text with the image's paths under the folder."""
        for path in MOVED:
            text = text.replace(path, f"{self.root}{path}")
        return text.replace("/python3.13/", self._lib)

    def carry_out(self, instruction: Instruction) -> None:
        """Do one step."""
        match instruction.word:
            case "FROM" | "USER" | "EXPOSE" | "HEALTHCHECK" | "ENTRYPOINT" | "CMD":
                return
            case "ENV" | "ARG":
                for pair in instruction.text.split():
                    name, _, value = pair.partition("=")
                    self.environment[name] = self.moved(value).replace("$PATH", self.environment["PATH"])
            case "WORKDIR":
                self._folder = Path(self.moved(instruction.text))
                self._folder.mkdir(parents=True)
            case "COPY":
                *names, to = instruction.text.split()
                for name in names:
                    self._copy(name, to)
            case "RUN":
                self._run(instruction)
            case _:
                pytest.fail(f"nobody here knows {instruction.word}")

    def _copy(self, name: str, to: str) -> None:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, self._folder / to, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, self._folder / to)

    def _run(self, instruction: Instruction) -> None:
        try:
            command = [self.moved(word) for word in instruction.exec_form()]
        except ValueError:
            command = ["/bin/sh", "-ec", self.moved(instruction.text)]
        done = subprocess.run(
            command, cwd=self._folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{instruction.text}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """Everything that the first stage does, and of the second what is no user's own."""
    root = Path(tempfile.mkdtemp(prefix="flow-outcomes-image-"))
    root.chmod(0o755)
    build, final = stages()
    try:
        made = Image(root, an_ordinary_python())
        for instruction in build:
            made.carry_out(instruction)
        tree = root / "opt" / "flow-outcomes"
        subprocess.run(["/bin/chmod", "--recursive", "a-w", tree], check=True)
        for instruction in final:
            if instruction.word == "ENV":
                made.carry_out(instruction)
        yield made
    finally:
        subprocess.run(["/bin/chmod", "--recursive", "u+w", root], check=False)
        shutil.rmtree(root, ignore_errors=True)


def an_ordinary_python() -> Path:
    """One that an ordinary user may run, which the one of these tests need not be."""
    for found in (Path(sys.executable).resolve(), Path("/usr/local/bin/python3"), Path("/usr/bin/python3")):
        if found.exists():
            done = subprocess.run(ordinary(found, "-c", "import ensurepip"), check=False, capture_output=True)
            if done.returncode == 0:
                return found
    pytest.skip("no Python that an ordinary user may run")


def ordinary(*command: str | Path) -> list[str | Path]:
    """The command as an ordinary user's, where we are root."""
    if os.geteuid():
        return list(command)
    nobody = pwd.getpwnam("nobody")
    return ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", *command]


def listing(tree: Path) -> dict[str, tuple[int, float]]:
    """Every file with its size and time."""
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime) for path in tree.rglob("*") if not path.is_dir()
    }


def test_it_starts_and_ends(image: Image, empty_database: str) -> None:
    """As an ordinary user, from a tree that it cannot write: ready, healthy, and ended in order on SIGTERM."""
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
        ordinary(tree / "bin" / command[0], *command[1:-1], config),
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
        healthy(image, environment, port)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=PATIENCE)
        assert (process.returncode, told) == (0, "")
    finally:
        process.kill()
        process.communicate()
    assert listing(tree) == before


def healthy(image: Image, environment: dict[str, str], port: str) -> None:
    """Carry the health check out as it stands, on the port at hand."""
    [check] = [each for each in stages()[-1] if each.word == "HEALTHCHECK"]
    command = Instruction("CMD", check.text.partition("CMD ")[2]).exec_form()
    program = image.root / "opt" / "flow-outcomes" / "bin" / command[0]
    done = subprocess.run(
        ordinary(program, *(word.replace(":8080/", f":{port}/") for word in command[1:])),
        env=environment,
        check=False,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr


def wait_for(url: str) -> None:
    """Until it answers 200."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own
                assert answer.status == 200
                return
        except OSError:
            assert time.monotonic() < deadline, url
            time.sleep(0.2)


def test_it_is_small_and_has_no_pip(image: Image) -> None:
    """What only builds is not in it."""
    tree = image.root / "opt" / "flow-outcomes"
    packages = {path.name.partition("-")[0] for path in tree.glob("lib/python*/site-packages/*.dist-info")}
    assert "flow_outcomes" in packages
    assert not packages & {"pip", "setuptools", "hatchling", "pytest", "pyarrow"}
    assert sum(size for size, _ in listing(tree).values()) < MOST
