"""The artifacts of CONTRIBUTING.md's release steps: the wheel, the bill of materials, one version for all."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import yaml

from tests.support.documents import ROOT, blocks

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
BIN = Path(sys.executable).parent
# these need an engine; `make image` executes the steps of a build
NO_ENGINE = {"docker pull", "BASE=$(docker inspect", "docker build", "docker push"}


def run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def recipe(target: str) -> str:
    """Return the last command of a target of the Makefile."""
    lines = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert lines is not None
    return lines[1].replace("\\\n", " ").strip().splitlines()[-1].strip()


def test_release_artifacts(tmp_path: Path) -> None:
    """The wheel has types, migrations and the page; the bill of materials has every locked package."""
    *_, built = blocks("CONTRIBUTING.md", "Release", "sh")
    wheel, materials, *others = built.text.splitlines()
    assert {" ".join(shlex.split(line)[:2]) for line in others} == NO_ENGINE
    run(shlex.split(wheel.replace(".venv/bin", str(BIN)).replace("--wheel-dir dist", f"--wheel-dir {tmp_path}")))
    [file] = tmp_path.glob(f"flow_outcomes-{VERSION}-*.whl")
    with zipfile.ZipFile(file) as opened:
        names = set(opened.namelist())
    migrations = {f"service/migrations/{each.name}" for each in (ROOT / "migrations").glob("*.sql")}
    assert {"service/py.typed", "service/web/static/index.html", *migrations} <= names
    assert {name.partition("/")[0] for name in names} == {"service", f"flow_outcomes-{VERSION}.dist-info"}
    assert shlex.split(materials, comments=True) == ["make", "sbom"]
    output = tmp_path / "sbom.cdx.json"
    run(shlex.split(recipe("sbom").replace("$(BIN)", str(BIN)).replace("dist/sbom.cdx.json", str(output))))
    bill = json.loads(output.read_text())
    assert (bill["bomFormat"], bill["metadata"]["component"]["version"]) == ("CycloneDX", VERSION)
    locked = re.findall(r"^([\w.-]+)==([^ ]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert sorted((each["name"], each["version"]) for each in bill["components"]) == sorted(locked)
    assert all(each["externalReferences"][0]["hashes"] for each in bill["components"])


def test_an_audit_that_fails_says_what_to_run(tmp_path: Path) -> None:
    """Where the advisories cannot be read, the target fails and names the command for elsewhere."""
    auditor = tmp_path / ".venv" / "audit" / "bin" / "pip-audit"
    auditor.parent.mkdir(parents=True)
    auditor.write_text("#!/bin/sh\necho not found on PyPI >&2\nexit 1\n")
    auditor.chmod(0o755)
    for made in (".made", ".runtime"):
        (tmp_path / ".venv" / made).touch()
    command = ["make", "-f", str(ROOT / "Makefile"), "-o", ".venv/.runtime", "audit"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert done.stderr.startswith("not found on PyPI\n")
    assert "pip-audit --strict --require-hashes --disable-pip --requirement requirements.txt" in done.stderr


def test_one_version() -> None:
    """The manifests deploy the built version, and the changelog begins with it or with Unreleased."""
    kustomization = yaml.safe_load((ROOT / "config" / "kubernetes" / "kustomization.yaml").read_text())
    assert [image["newTag"] for image in kustomization["images"]] == [VERSION]
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] in {"Unreleased", VERSION}
