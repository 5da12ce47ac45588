"""A reload: the configuration's file once it is complete, and what came and went with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from service.config import Config
from service.errors import ConfigError, Fault

STILL_FOR = 0.5
"""Seconds without a change after which a file counts as written to its end: half of one may be valid."""
POLL_INTERVAL = 0.1
TIMEOUT = 10.0


async def read_when_still(
    file: Path, read_config: Callable[[], Awaitable[Config]], stopped: Callable[[], bool] = lambda: False
) -> Config:
    """The configuration of a file that no longer changes, from before it is read to after that.

    Args:
        file: the configuration's file.
        read_config: reads it.
        stopped: whether to wait no longer.

    Raises:
        ConfigError: the configuration is invalid, or the file keeps changing.
    """
    now = asyncio.get_running_loop().time
    deadline = now() + TIMEOUT
    content, since = _content(file), now()
    while not stopped():
        if now() >= deadline:
            fault = f"kept changing for {TIMEOUT:g} s; send SIGHUP again when it is written"
            raise ConfigError([Fault(str(file), fault)])
        if now() - since >= STILL_FOR:
            result = await _read(read_config)
            if _content(file) == content:
                if isinstance(result, ConfigError):
                    raise result
                return result
        await asyncio.sleep(POLL_INTERVAL)
        if (latest := _content(file)) != content:
            content, since = latest, now()
    raise ConfigError([Fault(str(file), "was not read again, because the daemon stops")])


async def _read(read_config: Callable[[], Awaitable[Config]]) -> Config | ConfigError:
    try:
        return await read_config()
    except ConfigError as error:
        return error


def _content(file: Path) -> bytes | None:
    """The file's content; None while it cannot be read."""
    try:
        return file.read_bytes()
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
