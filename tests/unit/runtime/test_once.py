"""What ``run --once`` reports of an org whose lease it does not get."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from service.config import Config
from service.runtime import once
from service.runtime.process import Process
from service.runtime.signals import Signals

ORG = {"region": "mypurecloud.com", "client_id": "a", "client_secret": "a-secret"}


@pytest.mark.parametrize(
    ("error", "event", "reason"),
    [(None, "org_locked_elsewhere", "another process holds this org"), ("no room", "org_given_up", "no room")],
)
async def test_the_reason_for_a_missing_lease(
    monkeypatch: pytest.MonkeyPatch, error: str | None, event: str, reason: str
) -> None:
    """Another process is named only where the lease could be requested at all."""
    config = Config.model_validate({"database": {"dsn": "postgresql://db"}, "orgs": {"acme": ORG}})
    events: list[tuple[str, Any]] = []
    released: list[str] = []

    async def never(_: str) -> None:
        await asyncio.Event().wait()

    runtime = cast("Process", SimpleNamespace(lease=never, release=released.append, lease_error=error))
    monkeypatch.setattr(once, "LEASE_TIMEOUT", 0.0)
    [org] = config.orgs.values()
    done = await once._run_org(
        runtime, config, org, lambda event, **context: events.append((event, context)), Signals()
    )
    assert not done
    assert released == ["acme"]
    [(name, context)] = events
    assert name == event
    assert context["reason"].startswith(reason)
