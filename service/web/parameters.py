"""The query string of a request, validated before it reaches the database."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

from service.clock import Clock
from service.config import Config, Job, Org
from service.model import Granularity
from service.web.figures_csv import FileRequest
from service.web.flow import FlowRequest
from service.web.week import Measure

CHART_DAYS_MAX = {Granularity.HOURLY: 31, Granularity.DAILY: 1100, Granularity.MONTHLY: 366 * 20}
CALENDAR_DAYS_MAX = 400
CALENDAR_DAYS = 371
"""Days of a calendar without ``from``: 53 weeks."""
CHART_DAYS = {Granularity.HOURLY: 7, Granularity.DAILY: 90, Granularity.MONTHLY: 3 * 366}
"""Days of a chart without ``from``."""
TEXT_MAX = 512
LIMIT_DIGITS = 6
_FIRST, _END = date(1990, 1, 1), date(2200, 1, 1)


class ParameterError(ValueError):
    """An invalid request; the message says what is valid."""


class Parameters:
    """The parameters of one request.

    Args:
        given: the parameters as sent.
        known: the names that the path accepts.
        config: the configured orgs and jobs.
        clock: gives the current day.

    Raises:
        ParameterError: from the constructor and from each method.
    """

    def __init__(self, given: Mapping[str, str], known: frozenset[str], config: Config, clock: Clock) -> None:
        if unknown := sorted(set(given) - known):
            accepted = f"accepted: {', '.join(sorted(known))}" if known else "this path accepts none"
            raise ParameterError(f"unknown parameter {unknown[0][:40]!r}; {accepted}")
        self._given = given
        self._config = config
        self._clock = clock

    def given(self, key: str) -> bool:
        """Whether a parameter was sent."""
        return key in self._given

    def org(self) -> Org:
        """The org; required."""
        name = self._given.get("org", "")
        if name not in self._config.orgs:
            raise ParameterError(f"org: must be a configured org, such as {next(iter(self._config.orgs), 'acme')}")
        return self._config.orgs[name]

    def orgs(self) -> list[str]:
        """The given org, or all."""
        return [self.org().name] if "org" in self._given else list(self._config.orgs)

    def jobs(self, org: Org) -> list[Job]:
        """The org's jobs."""
        return list(self._config.jobs_of(org).values())

    def job(self, org: Org) -> Job:
        """The job; required."""
        found = {job.name: job for job in self.jobs(org)}
        name = self._given.get("job", "")
        if name not in found:
            raise ParameterError(f"job: must be one of {', '.join(found) or 'none'}")
        return found[name]

    def day(self) -> date:
        """A local date; required."""
        if (found := self._date("day")) is None:
            raise ParameterError("day: is required, such as 2024-01-31")
        return found

    def calendar(self, org: Org) -> tuple[date, date]:
        """The local dates of a calendar, the second exclusive; the last 53 weeks by default."""
        end = self._date("to") or self._today(org) + timedelta(days=1)
        first = self._date("from") or end - timedelta(days=CALENDAR_DAYS)
        return self._ordered(first, end, CALENDAR_DAYS_MAX)

    def granularity(self) -> Granularity:
        """The granularity; daily by default."""
        try:
            return Granularity(self._given.get("granularity", "daily"))
        except ValueError as error:
            raise ParameterError("granularity: must be hourly, daily or monthly") from error

    def chart(self, org: Org, granularity: Granularity) -> tuple[date, date]:
        """The local dates of a chart, the second exclusive; ``CHART_DAYS`` up to today by default."""
        end = self._date("to") or self._today(org) + timedelta(days=1)
        first = self._date("from") or end - timedelta(days=CHART_DAYS[granularity])
        return self._ordered(first, end, CHART_DAYS_MAX[granularity])

    def flow(self) -> str:
        """The flow's id; required."""
        if not (found := self._text("flow")):
            raise ParameterError("flow: is required: a flow's id")
        return found

    def flow_request(self, org: Org) -> FlowRequest:
        """The flow, its buckets, and the instants that are shown."""
        granularity = self.granularity()
        first, end = self.chart(org, granularity)
        at, compared_with, dimension = self.instant("at"), self.instant("with"), self._text("split") or None
        return FlowRequest(org, self.flow(), granularity, first, end, at, compared_with, dimension)

    def file_request(self, org: Org) -> FileRequest:
        """The figures of a file: of a flow or, without one, of all flows."""
        granularity = self.granularity()
        first, end = self.chart(org, granularity)
        figures = FlowRequest(org, self._text("flow"), granularity, first, end, self.instant("at"))
        if (escaping := self._given.get("formulas", "kept")) not in {"kept", "escaped"}:
            raise ParameterError("formulas: must be kept or escaped")
        return FileRequest(figures, escaping == "escaped")

    def instant(self, key: str) -> datetime | None:
        """An instant; None, for now, where it is not given."""
        given = self._given.get(key)
        if given is None:
            return None
        try:
            found = datetime.fromisoformat(given)
        except ValueError:
            found = None
        if found is None or found.tzinfo is None or not _FIRST < found.date() < _END:
            raise ParameterError(f"{key}: must be an instant with its offset, such as 2024-01-31T09:00:00Z")
        return found.astimezone(UTC)

    def measure(self) -> Measure | None:
        """What the overview compares; None for the usual measure of the org's API."""
        try:
            return Measure(self._given["measure"]) if "measure" in self._given else None
        except ValueError as error:
            raise ParameterError(f"measure: must be one of {', '.join(Measure)}") from error

    def batch(self) -> int:
        """The number of a batch of orgs, from 0."""
        given = self._given.get("batch", "0")
        if not (given.isascii() and given.isdecimal() and len(given) <= LIMIT_DIGITS):
            raise ParameterError("batch: must be a whole number from 0")
        return int(given)

    def search_text(self) -> str:
        """The text to search names for; empty matches all."""
        return self._text("q")

    def limit(self, default: int, maximum: int) -> int:
        """The maximum number of results."""
        given = self._given.get("limit", str(default))
        is_number = given.isascii() and given.isdecimal() and len(given) <= LIMIT_DIGITS
        if not (is_number and 1 <= int(given) <= maximum):
            raise ParameterError(f"limit: must be a whole number from 1 to {maximum}")
        return int(given)

    def _today(self, org: Org) -> date:
        return self._clock.now().astimezone(org.tz).date()

    def _text(self, key: str) -> str:
        found = self._given.get(key, "")
        if len(found) > TEXT_MAX or "\0" in found or any("\ud800" <= each <= "\udfff" for each in found):
            raise ParameterError(f"{key}: must be text of at most {TEXT_MAX} characters")
        return found

    def _date(self, key: str) -> date | None:
        given = self._given.get(key)
        if given is None:
            return None
        try:
            found = datetime.strptime(given, "%Y-%m-%d").replace(tzinfo=UTC).date()
        except ValueError:
            found = _END
        if not _FIRST <= found < _END:
            raise ParameterError(f"{key}: must be a date from {_FIRST} to {_END}, such as 2024-01-31")
        return found

    @staticmethod
    def _ordered(first: date, end: date, maximum: int) -> tuple[date, date]:
        if not first < end <= first + timedelta(days=maximum):
            raise ParameterError(f"from, to: must span 1 to {maximum} days; `to` is exclusive")
        return first, end
