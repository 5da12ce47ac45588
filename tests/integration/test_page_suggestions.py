"""Suggested aliases over HTTP: those of the view, each org searched again only after a change."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

import pytest

from service.postgres.pool import Connection
from service.postgres.queries import suggestions as queries
from service.web import kept_suggestions, response_cache
from tests.support import sample_database
from tests.support.page_harness import Site, serving
from tests.support.planted_renames import plant, store

Names = set[tuple[str, str, str, str]]


@pytest.fixture
async def site(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(response_cache, "MAX_AGE", 0)
    monkeypatch.setattr("service.web.endpoints._COST_FACTORS", {"/api/suggestions": 0})
    store(database, {org: plant("daily", 7001) for org in ("acme", "globex")})
    async with serving(database, sample_database.config(database)) as site:
        yield site


async def shown(site: Site, query: str = "") -> Names:
    """What is suggested, the most certain first."""
    found = (await site.get(f"/api/suggestions{query}"))["suggestions"]
    assert [each["confidence"] for each in found] == sorted((each["confidence"] for each in found), reverse=True)
    return {(each["org"], each["flow_id"], each["old_name"], each["new_name"]) for each in found}


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each org was searched."""
    counted: Counter[str] = Counter()

    async def count(connection: Connection, org: str, flow_id: str | None) -> list[queries.Suggestion]:
        counted[org] += 1
        return await queries.suggestions(connection, org, flow_id)

    monkeypatch.setattr(kept_suggestions, "suggestions", count)
    return counted


def view(site: Site) -> Names:
    rows = site.rows("SELECT org, flow_id, old_name, new_name FROM flow_outcomes.alias_suggestion")
    return {(row[0], row[1], row[2], row[3]) for row in rows}


async def test_the_view_s_suggestions(site: Site) -> None:
    """Of all orgs, of one, and of one flow."""
    expected = view(site)
    assert {org for org, *_ in expected} == {"acme", "globex"}
    assert await shown(site) == expected
    assert await shown(site, "?org=acme") == {each for each in expected if each[0] == "acme"}
    flow = next(each[1] for each in expected if each[0] == "acme")
    assert await shown(site, f"?org=acme&flow={flow}") == {each for each in expected if each[:2] == ("acme", flow)}


async def test_an_org_is_searched_after_a_change_only(site: Site, searches: Counter[str]) -> None:
    """A merge or an alias makes the search be repeated, of that org alone."""
    expected = await shown(site)
    assert await shown(site) == expected
    assert searches == {"acme": 1, "globex": 1}
    org, flow, old, new = next(iter(sorted(expected)))
    site.rows(
        "INSERT INTO flow_outcomes.outcome_alias (org, flow_id, old_name, new_name) VALUES (%s, %s, %s, %s)",
        org,
        flow,
        old,
        new,
    )
    assert (org, flow, old, new) not in await shown(site)
    assert searches == {"acme": 2, "globex": 1}
    site.rows("UPDATE flow_outcomes.org SET revision = revision + 1 WHERE org = 'globex'")
    await shown(site)
    assert searches == {"acme": 2, "globex": 2}


async def test_many_orgs_are_searched_gradually(
    site: Site, searches: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request searches for a limited time; the next one goes on, and nothing that was found is lost."""
    monkeypatch.setattr(kept_suggestions, "SEARCH_TIME", 0)
    first = await site.get("/api/suggestions")
    assert first["unsearched"] == 1
    assert searches == {"acme": 1}
    assert (await site.get("/api/suggestions"))["unsearched"] == 0
    assert await shown(site) == view(site)
    assert searches == {"acme": 1, "globex": 1}
