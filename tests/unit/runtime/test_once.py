"""What ``run --once`` says of an org that it did not get."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from service.config import Config
from service.runtime import once
from service.runtime.process import Runtime
from service.runtime.signals import Signals

ORG = {"region": "mypurecloud.com", "client_id": "a", "client_secret": "a-secret"}


@pytest.mark.parametrize(
    ("trouble", "event", "reason"),
    [(None, "org_locked_elsewhere", "another process works this org"), ("no room", "org_given_up", "no room")],
)
async def test_why_it_was_not_had(
    monkeypatch: pytest.MonkeyPatch, trouble: str | None, event: str, reason: str
) -> None:
    """Only where the hold could be asked for at all is another process said to have the org."""
    config = Config.model_validate({"database": {"dsn": "postgresql://db"}, "orgs": {"acme": ORG}})
    told: list[tuple[str, Any]] = []
    given_back: list[str] = []

    async def never(_: str) -> None:
        await asyncio.Event().wait()

    keeper = SimpleNamespace(last_error=trouble, release=given_back.append)
    runtime = cast("Runtime", SimpleNamespace(lease=never, keeper=keeper))
    monkeypatch.setattr(once, "HELD_ELSEWHERE", 0.0)
    [org] = config.orgs.values()
    done = await once._org(runtime, config, org, lambda name, **said: told.append((name, said)), Signals())
    assert not done
    assert given_back == ["acme"]
    [(name, said)] = told
    assert name == event
    assert said["reason"].startswith(reason)
