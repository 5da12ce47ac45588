"""Suggested aliases over HTTP: those of the view, each org searched again only after a change."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import psycopg
import pytest

from service.postgres.pool import Connection
from service.postgres.queries import suggestions as queries
from service.web import WebServer, kept_suggestions, response_cache
from tests.support import sample_database
from tests.support.fake_daemon import FakeDaemon
from tests.support.planted_renames import plant, store

Names = set[tuple[str, str, str, str]]


class Page:
    def __init__(self, address: str, session: aiohttp.ClientSession) -> None:
        self._address = address
        self._session = session

    async def document(self, query: str = "") -> dict[str, Any]:
        async with self._session.get(f"http://{self._address}/api/suggestions{query}") as response:
            assert response.status == 200, await response.text()
            found: dict[str, Any] = await response.json()
            return found

    async def names(self, query: str = "") -> Names:
        found = (await self.document(query))["suggestions"]
        assert [each["confidence"] for each in found] == sorted(
            (each["confidence"] for each in found), reverse=True
        )
        return {(each["org"], each["flow_id"], each["old_name"], each["new_name"]) for each in found}


@pytest.fixture
async def page(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Page]:
    monkeypatch.setattr(response_cache, "MAX_AGE", 0)
    monkeypatch.setattr(response_cache, "COST_FACTOR", 0)
    monkeypatch.setattr("service.web.endpoints._COST_FACTORS", {"/api/suggestions": 0})
    store(database, {org: plant("daily", 7001) for org in ("acme", "globex")})
    web = WebServer(FakeDaemon(sample_database.config(database), database))
    address = await web.start("127.0.0.1", 0)
    async with aiohttp.ClientSession() as session:
        yield Page(address, session)
    await web.stop()


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each org was searched."""
    counted: Counter[str] = Counter()

    async def count(connection: Connection, org: str, flow_id: str | None) -> list[queries.Suggestion]:
        counted[org] += 1
        return await queries.suggestions(connection, org, flow_id)

    monkeypatch.setattr(kept_suggestions, "suggestions", count)
    return counted


def view(dsn: str) -> Names:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT org, flow_id, old_name, new_name FROM flow_outcomes.alias_suggestion"
        ).fetchall()
    return {(row[0], row[1], row[2], row[3]) for row in rows}


async def test_the_view_s_suggestions(page: Page, database: str) -> None:
    """Of all orgs, of one, and of one flow."""
    expected = view(database)
    assert {org for org, *_ in expected} == {"acme", "globex"}
    assert await page.names() == expected
    assert await page.names("?org=acme") == {each for each in expected if each[0] == "acme"}
    flow = next(each[1] for each in expected if each[0] == "acme")
    assert await page.names(f"?org=acme&flow={flow}") == {each for each in expected if each[:2] == ("acme", flow)}


async def test_an_org_is_searched_after_a_change_only(page: Page, database: str, searches: Counter[str]) -> None:
    """A merge or an alias makes the search be repeated, of that org alone."""
    expected = await page.names()
    assert await page.names() == expected
    assert searches == {"acme": 1, "globex": 1}
    org, flow, old, new = next(iter(sorted(expected)))
    with psycopg.connect(database) as connection:
        connection.execute(
            "INSERT INTO flow_outcomes.outcome_alias (org, flow_id, old_name, new_name) VALUES (%s, %s, %s, %s)",
            [org, flow, old, new],
        )
    assert (org, flow, old, new) not in await page.names()
    assert searches == {"acme": 2, "globex": 1}
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE flow_outcomes.org SET revision = revision + 1 WHERE org = 'globex'")
    await page.names()
    assert searches == {"acme": 2, "globex": 2}


async def test_many_orgs_are_searched_gradually(
    page: Page, database: str, searches: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request searches for a limited time; the next one goes on, and nothing that was found is lost."""
    monkeypatch.setattr(kept_suggestions, "SEARCH_TIME", 0)
    first = await page.document()
    assert first["unsearched"] == 1
    assert searches == {"acme": 1}
    assert (await page.document())["unsearched"] == 0
    assert await page.names() == view(database)
    assert searches == {"acme": 1, "globex": 1}
