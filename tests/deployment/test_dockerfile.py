"""The Dockerfile by its text: no engine runs here. `make image` carries its steps out; see test_image.py."""

from __future__ import annotations

import re
from fnmatch import fnmatch

import pytest

from tests.support.dockerfile import ROOT, Instruction, stages

BUILD, FINAL = stages()


def all_of(stage: list[Instruction], word: str) -> list[Instruction]:
    return [each for each in stage if each.word == word]


def test_two_stages() -> None:
    """What builds stays behind: the image that runs begins anew and takes over the finished tree alone."""
    assert BUILD[0].text.endswith(" AS build")
    assert [each.text for each in all_of(FINAL, "COPY")] == ["--from=build /opt/flow-outcomes /opt/flow-outcomes"]
    bases = {stage[0].text.split()[0] for stage in (BUILD, FINAL)}
    assert len(bases) == 1, "a venv runs with the Python that it was made with"
    assert re.fullmatch(r"python:3\.\d+-slim", bases.pop())


def test_nothing_is_fetched_but_what_the_lock_names() -> None:
    """Every installation goes by hashes, or without an index."""
    installs = [each.text for each in all_of(BUILD, "RUN") if " install" in each.text or '"install"' in each.text]
    assert len(installs) == 3
    assert all("--require-hashes" in text or "--no-index" in text for text in installs)
    assert not any(
        word in each.text for each in all_of(BUILD + FINAL, "RUN") for word in ("curl", "wget", "apt-get", "://")
    )
    assert not any(each.word == "ADD" for each in (*BUILD, *FINAL))


def test_it_is_no_root() -> None:
    """The user is a number, which Kubernetes can see is not root, and owns nothing of the program."""
    [user] = all_of(FINAL, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user.text)
    assert [each.word for each in FINAL[FINAL.index(user) :] if each.word in ("RUN", "COPY")] == []


@pytest.mark.parametrize("word", ["ENTRYPOINT", "CMD"])
def test_exec_form(word: str) -> None:
    """Signals reach the program itself, not a shell."""
    [found] = all_of(FINAL, word)
    assert isinstance(found.exec_form(), list)


def test_a_health_check() -> None:
    """It asks the program without any other program in the image."""
    [check] = all_of(FINAL, "HEALTHCHECK")
    command = Instruction("CMD", check.text.partition("CMD ")[2]).exec_form()
    assert command[0] == "python"
    assert "/healthz" in command[-1]


def test_what_is_copied_is_there() -> None:
    """Each file that is copied is in the checkout and let into the build's context; little else is."""
    ignore = (ROOT / ".dockerignore").read_text().split()
    allowed = [line[1:] for line in ignore if line[:1] == "!"]
    copied = [name for each in all_of(BUILD, "COPY") for name in each.text.split()[:-1]]
    assert ignore[0] == "*"
    assert all((ROOT / name).exists() for name in copied)
    assert sorted(copied) == sorted(allowed)
    assert not any(fnmatch(name, "*secret*") for name in allowed)
