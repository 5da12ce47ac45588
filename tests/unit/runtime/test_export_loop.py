"""The daemon's exports where the state of the last one cannot be read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import psycopg
import pytest

from service.config import Export
from service.postgres.export import ExportState
from service.postgres.pool import Database
from service.runtime import export_loop
from service.runtime.export_loop import ExportLoop


class _Pool:
    @asynccontextmanager
    async def connection(self) -> AsyncIterator[None]:
        yield


async def test_an_unexpected_error_does_not_end_the_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported, as where the schema is gone during a restore, and the state is read again later."""
    reads: list[int] = []
    events: list[str] = []

    async def read_state(_: object) -> ExportState:
        reads.append(len(reads))
        if len(reads) < 3:
            raise psycopg.errors.UndefinedTable("relation flow_outcomes.export does not exist")
        loop.close()
        return ExportState(exported_ago=0.0, target="file:///tmp/none flow_outcomes")

    monkeypatch.setattr(export_loop, "read_state", read_state)
    monkeypatch.setattr(export_loop, "_LOOK_AGAIN_AFTER", 0.01)
    loop = ExportLoop(
        Export(warehouse="file:///tmp/none"), cast("Database", _Pool()), lambda event, **_: events.append(event)
    )
    async with asyncio.timeout(10):
        await loop.run()
    assert len(reads) == 3
    assert events == ["unexpected_error"] * 2
