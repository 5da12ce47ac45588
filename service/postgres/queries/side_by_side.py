"""Two parts of a document, read at the same time on two connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import psycopg

from service.errors import FlowOutcomesError
from service.postgres.pool import Connection
from service.postgres.queries.status import snapshot
from service.postgres.queries.week import org_revision

T = TypeVar("T")
U = TypeVar("U")

SecondConnection = Callable[[], AbstractAsyncContextManager[Connection | None]]
"""Lends a connection; None where there is none to spare."""


async def side_by_side(
    connection: Connection,
    second: SecondConnection,
    org: str,
    one: Callable[[Connection], Awaitable[T]],
    other: Callable[[Connection], Awaitable[U]],
) -> tuple[T, U]:
    """Read ``one`` on the connection and ``other`` on a second one.

    Without a second one, where it fails, or where it shows another revision of the org's figures, ``other`` is
    read on the connection too. An exported snapshot would make the comparison unnecessary, but the server writes
    it to a file, which fails on a full disk.

    Args:
        connection: in a ``snapshot``.
        second: lends the other connection.
        org: the org whose figures are read.
        one: reads on the connection.
        other: reads on the second one.
    """
    revision = await org_revision(connection, org)

    async def read() -> list[U]:
        try:
            async with second() as lent:
                if lent is None:
                    return []
                async with snapshot(lent):
                    return [await other(lent)] if await org_revision(lent, org) == revision else []
        except (psycopg.Error, OSError, FlowOutcomesError):
            return []

    task = asyncio.create_task(read())
    try:
        first, found = await one(connection), await task
    finally:
        task.cancel()
        await asyncio.wait({task})
    return first, found[0] if found else await other(connection)
