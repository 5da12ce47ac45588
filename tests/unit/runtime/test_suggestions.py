"""When an org is searched for suggested aliases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from service.config import Config, Org
from service.postgres.pool import Database
from service.postgres.queries.suggestions import Suggestion
from service.runtime import suggestions
from service.runtime.suggestions import BUSY_INTERVAL, COST_FACTOR, INTERVAL, SuggestionLog
from tests.support.fake_clock import FakeClock

DAY = datetime(2024, 5, 1, tzinfo=UTC)
PAIR = Suggestion(
    *("acme", "f", None, "Paid", "Settled", 0.95, "daily"), DAY, DAY + timedelta(days=1), 28, 5, 120.04, 118.0, 1.0
)


class Searches:
    """Stands in for the database.

    Attributes:
        revision: the org's.
        seconds: how long a search takes.
        made: the number of searches.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, clock: FakeClock, api: str = "query-builder") -> None:
        self.revision, self.seconds, self.made = 1, 0.0, 0
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._clock = clock
        org = {"region": "mypurecloud.com", "client_id": "a", "client_secret": "a-secret", "api": api}
        config = Config.model_validate({"database": {"dsn": "postgresql://db"}, "orgs": {"acme": org}})
        self.org: Org = config.orgs["acme"]
        monkeypatch.setattr(suggestions, "current_revision", self._current_revision)
        monkeypatch.setattr(suggestions, "record_new", self._record_new)
        self.log = SuggestionLog(
            cast("Database", None), clock, lambda event, **context: self.events.append((event, context))
        )

    async def _current_revision(self, *_: object) -> int:
        return self.revision

    async def _record_new(self, *_: object) -> list[Suggestion]:
        self._clock.advance(timedelta(seconds=self.seconds))
        self.made += 1
        return [PAIR] if self.made == 1 else []

    async def after(self, seconds: float, *, busy: bool = False) -> int:
        """Poll after so many seconds; return the number of searches so far."""
        self._clock.advance(timedelta(seconds=seconds))
        await self.log.poll(self.org, busy=busy)
        return self.made


async def test_a_pair_is_logged_with_its_evidence(monkeypatch: pytest.MonkeyPatch, fake_clock: FakeClock) -> None:
    """The event has both names, the confidence and what it rests on."""
    searches = Searches(monkeypatch, fake_clock)
    assert await searches.after(0) == 1
    [(event, context)] = searches.events
    assert event == "alias_suggested"
    assert context == {
        "org": "acme",
        "flow_id": "f",
        "flow_name": None,
        "old_name": "Paid",
        "new_name": "Settled",
        "confidence": 0.95,
        "granularity": "daily",
        "days_before": 28,
        "days_after": 5,
        "last_seen": "2024-05-01T00:00:00.000Z",
        "first_seen": "2024-05-02T00:00:00.000Z",
        "mean_before": 120.0,
        "mean_after": 118.0,
    }


async def test_an_org_is_searched_after_its_figures_changed(
    monkeypatch: pytest.MonkeyPatch, fake_clock: FakeClock
) -> None:
    """At most once a minute, and not again for the same figures."""
    searches = Searches(monkeypatch, fake_clock)
    assert await searches.after(0) == 1
    assert await searches.after(INTERVAL) == 1
    searches.revision = 2
    assert await searches.after(0) == 2
    searches.revision = 3
    assert await searches.after(INTERVAL - 1) == 2
    assert await searches.after(1) == 3


async def test_a_slow_search_takes_one_percent_of_the_time(
    monkeypatch: pytest.MonkeyPatch, fake_clock: FakeClock
) -> None:
    """The longer it took, the longer until the next one."""
    searches = Searches(monkeypatch, fake_clock)
    searches.seconds = 5
    assert await searches.after(0) == 1
    searches.revision = 2
    assert await searches.after(5 * COST_FACTOR - 1) == 1
    assert await searches.after(1) == 2


async def test_scans_in_flight_postpone_a_search(monkeypatch: pytest.MonkeyPatch, fake_clock: FakeClock) -> None:
    """For an hour: a backlog may take days."""
    searches = Searches(monkeypatch, fake_clock)
    assert await searches.after(0, busy=True) == 0
    assert await searches.after(BUSY_INTERVAL - 1, busy=True) == 0
    assert await searches.after(1, busy=True) == 1
    searches.revision = 2
    assert await searches.after(INTERVAL, busy=True) == 1
    assert await searches.after(0) == 2


async def test_outcomes_with_ids_need_no_suggestion(
    monkeypatch: pytest.MonkeyPatch, fake_clock: FakeClock
) -> None:
    """On flow-aggregates an outcome keeps its id, and nothing is searched."""
    searches = Searches(monkeypatch, fake_clock, api="flow-aggregates")
    assert await searches.after(0) == 0
    await searches.log.search(searches.org)
    assert searches.made == 0
