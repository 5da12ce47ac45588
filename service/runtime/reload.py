"""A reload: the configuration's file once it is complete, and what it adds, removes and changes."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from service.config import Config
from service.config.file_content import read_bytes
from service.errors import ConfigError, Fault

UNCHANGED_FOR = 0.5
"""Seconds without a change after which a file counts as written to its end: half of one may be valid."""
POLL_INTERVAL = 0.1
TIMEOUT = 10.0


async def read_when_unchanged(
    file: Path, read_config: Callable[[], Awaitable[Config]], stopped: Callable[[], bool] = lambda: False
) -> Config:
    """The configuration of a file that no longer changes, from before it is read to after that.

    Args:
        file: the configuration's file.
        read_config: reads it.
        stopped: whether to wait no longer.

    Raises:
        ConfigError: the configuration is invalid, the file keeps changing, or it is a pipe or a device.
    """
    _check_kind(file)
    now = asyncio.get_running_loop().time
    deadline = now() + TIMEOUT
    content, since = _content(file), now()
    while not stopped():
        if now() >= deadline:
            fault = f"kept changing for {TIMEOUT:g} s; send SIGHUP again when it is written"
            raise ConfigError([Fault(str(file), fault)])
        if now() - since >= UNCHANGED_FOR:
            result = await _read(read_config)
            if _content(file) == content:
                if isinstance(result, ConfigError):
                    raise result
                return result
        await asyncio.sleep(POLL_INTERVAL)
        if (latest := _content(file)) != content:
            content, since = latest, now()
    raise ConfigError([Fault(str(file), "was not read again, because the daemon stops")])


def _check_kind(file: Path) -> None:
    """Reject a pipe or a device: reading it may never end."""
    try:
        mode = file.stat().st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        fault = "is a pipe or a device, which is read at the start only; restart to read it again"
        raise ConfigError([Fault(str(file), fault)])


async def _read(read_config: Callable[[], Awaitable[Config]]) -> Config | ConfigError:
    try:
        return await read_config()
    except ConfigError as error:
        return error


def _content(file: Path) -> bytes | None:
    """The file's content; None while it cannot be read."""
    try:
        return read_bytes(file)
    except OSError:
        return None


def changes(old: Config, new: Config) -> dict[str, list[str]]:
    """The orgs, jobs and ad hoc entries that a reload adds, removes and changes, as keys."""
    before, after = _sections(old), _sections(new)
    return {
        "added": [key for key in after if key not in before],
        "removed": [key for key in before if key not in after],
        "changed": [key for key in after if key in before and after[key] != before[key]],
    }


def _sections(config: Config) -> dict[str, object]:
    groups: dict[str, Mapping[str, object]] = {"orgs": config.orgs, "jobs": config.jobs, "ad_hoc": config.ad_hoc}
    return {f"{group}.{name}": section for group, named in groups.items() for name, section in named.items()}
