"""The overview's days, read on two connections at the same time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from service.clock import SystemClock
from service.errors import DatabaseUnavailableError
from service.postgres.pool import Connection
from service.postgres.probe import open_connection
from service.postgres.queries.side_by_side import SecondConnection
from service.web import week
from service.web.response_cache import MAX_CONNECTIONS, ResponseCache
from service.web.week import Measure
from tests.support import sample_weeks
from tests.support.sample_weeks import midnight

NOW = datetime.now(UTC)


async def _document(dsn: str, second: SecondConnection | None = None, measure: Measure | None = None) -> Any:  # noqa: ANN401
    config = sample_weeks.config(dsn)
    async with open_connection(dsn, "test", timeout=10) as connection:
        arguments = (connection, config, config.orgs["acme"], NOW, measure, None)
        document = await (week.document(*arguments, second) if second else week.document(*arguments))
        return {**document, "flows": sorted(document["flows"], key=lambda each: str(each["id"]))}


def _lending(dsn: str, before: Callable[[], None] = lambda: None) -> tuple[SecondConnection, list[Connection]]:
    """A second connection, and those that were lent; ``before`` runs first."""
    lent: list[Connection] = []

    @asynccontextmanager
    async def second() -> AsyncIterator[Connection | None]:
        before()
        async with open_connection(dsn, "test", timeout=10) as connection:
            lent.append(connection)
            yield connection

    return second, lent


@pytest.mark.parametrize("measure", list(Measure))
async def test_two_connections_show_what_one_shows(database: str, measure: Measure) -> None:
    """Each measure of each flow: one that ended two weeks ago with a null, and one that began then, included."""
    sample_weeks.plant(database, flows=7)
    with psycopg.connect(database) as connection:
        delete = "DELETE FROM flow_outcomes.figure WHERE series_no BETWEEN %s AND %s AND bucket_start "
        connection.execute(f"{delete} >= %s".encode(), [9, 12, midnight(14)])
        connection.execute(f"{delete} < %s".encode(), [13, 16, midnight(12)])
        connection.execute(
            "UPDATE flow_outcomes.figure SET state = 'expected', outcome_count = NULL, success_count = NULL,"
            " failure_count = NULL, duration_count = NULL, duration_sum_ms = NULL"
            " WHERE series_no BETWEEN 9 AND 12 AND bucket_start = %s",
            [midnight(15)],
        )
    second, lent = _lending(database)
    document = await _document(database, second, measure)
    assert document == await _document(database, None, measure)
    assert len(lent) == 1
    (ended,) = [each for each in document["flows"] if each["id"] == "flow-2"]
    assert ended["nulls"] == 0  # that null is not of this week
    assert "silent_since" not in ended


async def test_a_merge_between_the_two_snapshots(database: str) -> None:
    """Where the second connection shows a later revision, the first one's figures are shown for all days."""
    sample_weeks.plant(database, flows=2)
    expected = await _document(database)

    def merge() -> None:
        with psycopg.connect(database) as connection:
            connection.execute("UPDATE flow_outcomes.figure SET outcome_count = 7 * outcome_count")
            connection.execute("UPDATE flow_outcomes.org SET revision = revision + 1")

    second, lent = _lending(database, merge)
    assert await _document(database, second) == expected
    assert len(lent) == 1
    assert await _document(database) != expected


async def test_a_second_connection_that_fails(database: str) -> None:
    """Without a second connection the overview is read on the first."""
    sample_weeks.plant(database, flows=2)
    failed = 0

    def fail() -> None:
        nonlocal failed
        failed += 1
        raise DatabaseUnavailableError("too many connections")

    second, _ = _lending(database, fail)
    assert await _document(database, second) == await _document(database)
    assert failed == 1


async def test_no_document_waits_for_a_second_connection(database: str) -> None:
    """While every connection of the page is in use, none is lent: documents would wait for one another."""
    cache = ResponseCache(lambda: database, SystemClock())
    lent: list[Connection | None] = []

    async def nested(number: int) -> Callable[[Connection], Awaitable[dict[str, Any]]]:
        async def make(_connection: Connection) -> dict[str, Any]:
            if number + 1 < MAX_CONNECTIONS:
                await cache.get(f"{number + 1}", await nested(number + 1))
            async with cache.second_connection() as connection:
                lent.append(connection)
            return {}

        return make

    try:
        await cache.get("0", await nested(0))
    finally:
        await cache.close()
    assert [connection is None for connection in lent] == [True, False, False]
