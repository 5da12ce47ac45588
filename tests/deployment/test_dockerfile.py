"""The text of the Dockerfile; `make image` builds it, or executes its steps without an engine."""

from __future__ import annotations

import re
from fnmatch import fnmatch

import pytest

from tests.support.dockerfile import ROOT, Instruction, stages

BUILD, FINAL = stages()


def all_of(stage: list[Instruction], word: str) -> list[Instruction]:
    return [each for each in stage if each.word == word]


def test_two_stages() -> None:
    """The final image copies only the installed tree from the build stage."""
    assert BUILD[0].text.endswith(" AS build")
    assert [each.text for each in all_of(FINAL, "COPY")] == ["--from=build /opt/flow-outcomes /opt/flow-outcomes"]
    bases = {stage[0].text.split()[0] for stage in (BUILD, FINAL)}
    assert len(bases) == 1, "a venv needs the Python that created it"
    assert re.fullmatch(r"python:3\.\d+-slim", bases.pop())


def test_a_release_sets_the_base_by_its_digest() -> None:
    """One argument is the base of every stage, and the release's steps give it a digest."""
    text = (ROOT / "Dockerfile").read_text()
    assert [line.split()[1] for line in text.splitlines() if line.startswith("FROM ")] == ["${BASE}"] * 2
    release = (ROOT / "CONTRIBUTING.md").read_text().partition("## Release")[2]
    assert '--build-arg BASE="$BASE"' in release
    assert "@sha256:" in release


def test_only_locked_packages_are_installed() -> None:
    """Every installation requires hashes or uses no index."""
    installs = [each.text for each in all_of(BUILD, "RUN") if " install" in each.text or '"install"' in each.text]
    assert len(installs) == 3
    assert all("--require-hashes" in text or "--no-index" in text for text in installs)
    assert not any(
        word in each.text for each in all_of(BUILD + FINAL, "RUN") for word in ("curl", "wget", "apt-get", "://")
    )
    assert not any(each.word == "ADD" for each in (*BUILD, *FINAL))


def test_it_does_not_run_as_root() -> None:
    """The user is numeric, so that Kubernetes can verify that it is not root, and owns no file of the program."""
    [user] = all_of(FINAL, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user.text)
    assert [each.word for each in FINAL[FINAL.index(user) :] if each.word in ("RUN", "COPY")] == []


@pytest.mark.parametrize("word", ["ENTRYPOINT", "CMD"])
def test_exec_form(word: str) -> None:
    """The exec form delivers signals to the program, not to a shell."""
    [instruction] = all_of(FINAL, word)
    assert isinstance(instruction.exec_form(), list)


def test_the_health_check() -> None:
    """It requests /healthz with Python, without another program in the image."""
    [check] = all_of(FINAL, "HEALTHCHECK")
    command = Instruction("CMD", check.text.partition("CMD ")[2]).exec_form()
    assert command[0] == "python"
    assert "/healthz" in command[-1]


def test_the_labels() -> None:
    """The image names its source, version, revision and licence, from the release's steps and the workflow."""
    [labels] = all_of(FINAL, "LABEL")
    pairs = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', labels.text))
    given = {"version": "$VERSION", "revision": "$REVISION", "source": "$SOURCE", "licenses": "Apache-2.0"}
    assert given.items() <= pairs.items()
    assert [each.text for each in all_of(FINAL, "ARG")] == ["VERSION=", "REVISION=", "SOURCE="]
    release = (ROOT / "CONTRIBUTING.md").read_text().partition("## Release")[2]
    workflow = (ROOT / ".github" / "workflows" / "build.yaml").read_text()
    for name in ("VERSION", "REVISION", "SOURCE"):
        assert f"--build-arg {name}=" in release
        assert f"--build-arg {name}=" in workflow


def test_copied_files_exist() -> None:
    """The build context has exactly the files that are copied, and each exists."""
    ignore = (ROOT / ".dockerignore").read_text().split()
    allowed = [line[1:] for line in ignore if line[:1] == "!"]
    copied = [name for each in all_of(BUILD, "COPY") for name in each.text.split()[:-1]]
    assert ignore[0] == "*"
    assert all((ROOT / name).exists() for name in copied)
    assert sorted(copied) == sorted(allowed)
    assert not any(fnmatch(name, "*secret*") for name in allowed)
