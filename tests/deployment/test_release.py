"""The artifacts of CONTRIBUTING.md's release steps: the wheel, the bill of materials, one version for all."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.documents import ROOT, blocks

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSION = PROJECT["version"]
PYTHONS = [each.rpartition(" ")[2] for each in PROJECT["classifiers"] if ":: Python ::" in each]
WORKFLOW = ROOT / ".github" / "workflows" / "build.yaml"
BIN = Path(sys.executable).parent
MIGRATIONS = [each for each in (ROOT / "migrations").glob("*.sql") if ".rollback" not in each.name]
# these need an engine; `make image` executes the steps of a build
NO_ENGINE = {"docker pull", "BASE=$(docker inspect", "docker build", "docker push"}


def run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def recipe(target: str) -> str:
    """Return the last command of a target of the Makefile."""
    lines = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert lines is not None
    return lines[1].replace("\\\n", " ").strip().splitlines()[-1].strip()


def content(wheel: Path) -> set[str]:
    """Return the names of the files in a wheel."""
    with zipfile.ZipFile(wheel) as opened:
        return set(opened.namelist())


def build(folder: Path) -> tuple[Path, Path]:
    """Build the wheel and the source distribution as `make dist` does; return both files."""
    run(
        shlex.split(
            recipe("dist").replace("$(BIN)", str(BIN)).replace("--directory dist", f"--directory {folder}")
        )
    )
    [wheel] = folder.glob(f"flow_outcomes-{VERSION}-*.whl")
    return wheel, folder / f"flow_outcomes-{VERSION}.tar.gz"


def test_release_artifacts(tmp_path: Path) -> None:
    """The wheel has types, migrations and the page; the bill of materials has every locked package."""
    *_, built = blocks("CONTRIBUTING.md", "Release", "sh")
    dist, materials, *others = built.text.replace("\\\n", " ").splitlines()
    assert {" ".join(shlex.split(line)[:2]) for line in others} == NO_ENGINE
    assert shlex.split(dist, comments=True) == ["make", "dist"]
    wheel, _ = build(tmp_path)
    names = content(wheel)
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


def test_a_wheel_from_the_source_distribution(tmp_path: Path) -> None:
    """The source distribution builds the same wheel, and has the documents, the tests and the lock."""
    wheel, source = build(tmp_path)
    with tarfile.open(source) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
        opened.extractall(tmp_path / "source", filter="data")
    assert {"LICENSE", "CHANGELOG.md", "requirements.txt", "docs/operating.md", "dbt/dbt_project.yml"} <= names
    assert not [name for name in names if name.startswith((".venv", ".git/", "dist"))]
    [folder] = (tmp_path / "source").iterdir()
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    run([*pip, "--wheel-dir", str(tmp_path / "again"), str(folder)])
    assert content(tmp_path / "again" / wheel.name) == content(wheel)


def test_a_wheel_runs_alone(tmp_path: Path) -> None:
    """Installed from its file the program starts in any folder, knows its version and has its migrations."""
    wheel, _ = build(tmp_path)
    target = tmp_path / "installed"
    run([sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)])
    code = "import service.postgres.migrate as m; print(m.__file__, len(m.known_migrations()))"
    for words, expected in (
        (["-m", "service", "--version"], f"flow-outcomes {VERSION}"),
        (["-c", code], f"{target}/service/postgres/migrate.py {len(MIGRATIONS)}"),
    ):
        done = subprocess.run(
            [sys.executable, *words],
            cwd="/",
            env={"PYTHONPATH": str(target), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stdout.strip()) == (0, expected), done.stderr


@pytest.mark.image
@pytest.mark.parametrize("version", PYTHONS)
def test_files_that_install(tmp_path: Path, version: str) -> None:
    """Each file installs into an empty environment of each supported Python, with the lock, and the demo runs."""
    python = find_python(version)
    if python is None:
        pytest.skip(f"there is no Python {version} with venv: name its path in PYTHON{version.replace('.', '')}")
    wheel, source = build(tmp_path)
    venv = tmp_path / "venv"
    run([python, "-m", "venv", str(venv)])
    pip = [str(venv / "bin" / "pip"), "install", "--quiet"]
    program = str(venv / "bin" / "flow-outcomes")
    locks = [f"--requirement={ROOT / name}" for name in ("requirements.txt", "requirements-build.txt")]
    run([*pip, "--require-hashes", *locks])
    for file in (source, wheel):
        run([*pip, "--no-deps", "--no-index", "--no-build-isolation", "--force-reinstall", str(file)])
        run([program, "--version"])
        run([program, "config", "schema"])
    run([program, "demo", "--once", "--port", "0"])


def find_python(version: str) -> str | None:
    """The path of a Python that can create a venv."""
    for path in (os.environ.get(f"PYTHON{version.replace('.', '')}"), shutil.which(f"python{version}")):
        if path is None:
            continue
        code = "import ensurepip, sys; print('%d.%d' % sys.version_info[:2])"
        found = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False).stdout
        if found.strip() == version:
            return path
    return None


def test_the_workflow() -> None:
    """The workflow tests every supported Python, uses what exists, and names no registry."""
    text = WORKFLOW.read_text()
    jobs = yaml.safe_load(text)["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == PYTHONS
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets is not None
    used = {word for line in re.findall(r"\bmake ([a-z ]+)$", text, re.MULTILINE) for word in line.split()}
    assert used
    assert used <= set(targets[1].split())
    arguments = set(re.findall(r"--build-arg (\w+)=", text))
    declared = re.findall(r"^ARG (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert arguments <= {word.partition("=")[0] for line in declared for word in line.split()}
    assert not re.findall(r"\w+\.(?:io|org|com|dev)\b|://", text)
    steps = [step for job in jobs.values() for step in job["steps"]]
    assert not [
        step for step in steps if "${{" in step.get("run", "")
    ]  # an expression in a script can be injected
    assert jobs["publish-wheel"]["if"] == "vars.PACKAGE_INDEX_URL != ''"
    assert jobs["publish-image"]["if"] == "vars.IMAGE != ''"


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
    for folder in ("kubernetes", "kubernetes-example"):
        kustomization = yaml.safe_load((ROOT / "config" / folder / "kustomization.yaml").read_text())
        assert [image["newTag"] for image in kustomization["images"]] == [VERSION]
    assert yaml.safe_load((ROOT / "dbt" / "dbt_project.yml").read_text())["version"] == VERSION
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] in {"Unreleased", VERSION}
