"""A reload: every key of an org takes effect, the file is complete, and the event names what changed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.config import Config, config_from
from service.config.sections import Org
from service.errors import ConfigError
from service.runtime.daemon import _CLIENT_KEYS
from service.runtime.reload import changes, read_when_unchanged

Run = Callable[..., Any]

# Read where they are used, or passed on by OrgWorker.configure.
_APPLIED_WHILE_RUNNING = {
    "breaker",
    "concurrency",
    "flows",
    "page_size",
    "query_timeout",
    "requests_per_second",
    "retention",
    "timezone",
}


def test_each_key_of_an_org_is_applied() -> None:
    """Each key is applied to the running client or needs a new one; a new key must be listed here or there."""
    applied = {*_CLIENT_KEYS, *_APPLIED_WHILE_RUNNING}
    assert {*Org.model_fields, "certificates"} - {"ca_file"} == applied  # the file's content is compared


def config_of(orgs: str = "acme", jobs: str = "daily", *, changed: dict[str, Any] | None = None) -> Config:
    """A configuration with these orgs, jobs and changes."""
    org = {"region": "mypurecloud.com", "client_id": "me", "client_secret": "a-long-secret"}
    tree: dict[str, Any] = {
        "database": {"dsn": "postgresql://outcomes@db/outcomes"},
        "orgs": dict.fromkeys(orgs.split(), org),
        "jobs": {name: {"since": "P3D"} for name in jobs.split()},
    }
    for key, value in (changed or {}).items():
        tree.setdefault(key, {}).update(value)
    return config_from(tree)


def test_the_changes_of_a_reload() -> None:
    """Orgs, jobs and ad hoc entries that came, went and changed, by their keys."""
    recount = {"org": "acme", "from": "2024-03-01", "to": "2024-04-01"}
    old = config_of("acme other", "daily hourly", changed={"ad_hoc": {"gone": recount, "moved": recount}})
    moved = {**recount, "to": "2024-05-01"}
    hourly, ad_hoc = {"hourly": {"since": "P4D"}}, {"moved": moved, "new": recount}
    new = config_of("acme third", "daily", changed={"jobs": hourly, "ad_hoc": ad_hoc})
    assert changes(old, new) == {
        "added": ["orgs.third", "ad_hoc.new"],
        "removed": ["orgs.other", "ad_hoc.gone"],
        "changed": ["jobs.hourly", "ad_hoc.moved"],
    }
    assert changes(old, old) == {"added": [], "removed": [], "changed": []}


class Writer:
    """Writes one step of a file at a time, and reads it as a list of its orgs."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.read: list[str] = []

    async def write(self, *steps: str, every: float = 0.3) -> None:
        for step in steps:
            self.file.write_text(step)
            await asyncio.sleep(every)

    async def config(self) -> Config:
        self.read.append(self.file.read_text())
        return config_of(self.read[-1])


def test_a_file_is_read_when_it_is_complete(in_virtual_time: Run, tmp_path: Path) -> None:
    """Half of it is valid, and is not applied."""
    writer = Writer(tmp_path / "config.yaml")

    async def main() -> Config:
        writing = asyncio.create_task(writer.write("a", "a b", "a b c"))
        await asyncio.sleep(0.01)
        config = await read_when_unchanged(writer.file, writer.config)
        await writing
        return config

    assert list(in_virtual_time(main()).orgs) == ["a", "b", "c"]
    assert writer.read == ["a b c"]


def test_a_file_that_changes_while_it_is_read(in_virtual_time: Run, tmp_path: Path) -> None:
    """It is read again, valid or not."""
    writer = Writer(tmp_path / "config.yaml")
    writer.file.write_text("a")
    following = ["INVALID", "a b"]

    async def read() -> Config:
        try:
            return await writer.config()
        finally:
            if following:
                writer.file.write_text(following.pop(0))

    assert list(in_virtual_time(read_when_unchanged(writer.file, read)).orgs) == ["a", "b"]
    assert writer.read == ["a", "INVALID", "a b"]


def test_a_file_that_keeps_changing(in_virtual_time: Run, tmp_path: Path) -> None:
    """It is rejected in the end, and no sooner than that."""
    writer = Writer(tmp_path / "config.yaml")

    async def main() -> None:
        writing = asyncio.create_task(writer.write(*(f"a{number}" for number in range(100))))
        try:
            await asyncio.sleep(0.01)
            await read_when_unchanged(writer.file, writer.config)
        finally:
            writing.cancel()

    with pytest.raises(ConfigError, match="kept changing for 10 s"):
        in_virtual_time(main())
    assert writer.read == []


def test_an_invalid_file_is_reported(in_virtual_time: Run, tmp_path: Path) -> None:
    """One that is still has its faults; a stop ends the wait."""
    writer = Writer(tmp_path / "config.yaml")
    writer.file.write_text("INVALID")
    with pytest.raises(ConfigError, match="lowercase"):
        in_virtual_time(read_when_unchanged(writer.file, writer.config))
    with pytest.raises(ConfigError, match="stops"):
        in_virtual_time(read_when_unchanged(writer.file, writer.config, lambda: True))


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_a_device_is_not_read_again(in_virtual_time: Run, tmp_path: Path, kind: str) -> None:
    """Reading a pipe without a writer would stop the daemon, and a device may have no end."""
    file = tmp_path / "config.yaml"
    if kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")
    writer = Writer(file)
    with pytest.raises(ConfigError, match="is a pipe or a device"):
        in_virtual_time(read_when_unchanged(file, writer.config))
    assert writer.read == []
