"""What a request asks for, held against the configuration and its bounds before the database hears of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

from service.clock import Clock
from service.config import Config, Job, Org
from service.model import Granularity

MOST_DAYS = {Granularity.HOURLY: 31, Granularity.DAILY: 1100, Granularity.MONTHLY: 366 * 20}
MOST_CALENDAR_DAYS = 400
USUAL_CALENDAR_DAYS = 371  # 53 weeks
LONGEST_TEXT = 512
_FIRST, _PAST = date(1990, 1, 1), date(2200, 1, 1)


class ParameterError(ValueError):
    """A request that cannot be answered; its message says what would be right."""


class Parameters:
    """The query string of one request.

    Args:
        given: its parameters.
        known: those that the path takes; any other is a mistake worth telling.
        config: which orgs and jobs there are.
        clock: which day it is.

    Raises:
        ParameterError: from here and from each method.
    """

    def __init__(self, given: Mapping[str, str], known: frozenset[str], config: Config, clock: Clock) -> None:
        if unknown := sorted(set(given) - known):
            taken = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
            raise ParameterError(f"unknown parameter {unknown[0][:40]!r}: {taken}")
        self._given = given
        self._config = config
        self._clock = clock

    def org(self) -> Org:
        """The org, which has to be named."""
        name = self._given.get("org", "")
        if name not in self._config.orgs:
            raise ParameterError(
                f"org: must be one of those configured, as {next(iter(self._config.orgs), 'acme')}"
            )
        return self._config.orgs[name]

    def orgs(self) -> list[str]:
        """The named org alone, or all."""
        return [self.org().name] if "org" in self._given else list(self._config.orgs)

    def jobs(self, org: Org) -> list[Job]:
        """Every job that works for the org."""
        return [job for job in self._config.jobs.values() if org in self._config.orgs_of(job.name)]

    def job(self, org: Org) -> Job:
        """The job, which has to be named."""
        found = {job.name: job for job in self.jobs(org)}
        name = self._given.get("job", "")
        if name not in found:
            raise ParameterError(f"job: must be one of {', '.join(found) or 'none'}")
        return found[name]

    def day(self) -> date:
        """One local date, which has to be given."""
        if (found := self._date("day")) is None:
            raise ParameterError("day: is required, as 2024-01-31")
        return found

    def calendar(self, org: Org) -> tuple[date, date]:
        """The local dates of a calendar, the second exclusive; the last year where none are given."""
        past = self._date("to") or self._today(org) + timedelta(days=1)
        first = self._date("from") or past - timedelta(days=USUAL_CALENDAR_DAYS)
        return self._ordered(first, past, MOST_CALENDAR_DAYS)

    def granularity(self) -> Granularity:
        """The granularity; daily where none is given."""
        try:
            return Granularity(self._given.get("granularity", "daily"))
        except ValueError as error:
            raise ParameterError("granularity: must be hourly, daily or monthly") from error

    def figures(self, org: Org, granularity: Granularity) -> tuple[date, date]:
        """The local dates of a chart, the second exclusive."""
        usual = {Granularity.HOURLY: 7, Granularity.DAILY: 90, Granularity.MONTHLY: 3 * 366}[granularity]
        past = self._date("to") or self._today(org) + timedelta(days=1)
        first = self._date("from") or past - timedelta(days=usual)
        return self._ordered(first, past, MOST_DAYS[granularity])

    def flow(self) -> str:
        """The flow's id, which has to be given."""
        if not (found := self._text("flow")):
            raise ParameterError("flow: is required, a flow's id")
        return found

    def sought(self) -> str:
        """What a name is searched for; empty for anything."""
        return self._text("q")

    def limit(self, usual: int, most: int) -> int:
        """How much is wanted at most."""
        given = self._given.get("limit", str(usual))
        if not (given.isascii() and given.isdecimal() and len(given) <= 6 and 1 <= int(given) <= most):  # noqa: PLR2004 - digits
            raise ParameterError(f"limit: must be a whole number from 1 to {most}")
        return int(given)

    def _today(self, org: Org) -> date:
        return self._clock.now().astimezone(org.tz).date()

    def _text(self, key: str) -> str:
        found = self._given.get(key, "")
        if len(found) > LONGEST_TEXT or "\0" in found or any("\ud800" <= each <= "\udfff" for each in found):
            raise ParameterError(f"{key}: must be text of at most {LONGEST_TEXT} characters")
        return found

    def _date(self, key: str) -> date | None:
        given = self._given.get(key)
        if given is None:
            return None
        try:
            found = datetime.strptime(given, "%Y-%m-%d").replace(tzinfo=UTC).date()
        except ValueError:
            found = _PAST
        if not _FIRST <= found < _PAST:
            raise ParameterError(f"{key}: must be a date from {_FIRST} to {_PAST}, as 2024-01-31")
        return found

    @staticmethod
    def _ordered(first: date, past: date, most: int) -> tuple[date, date]:
        if not first < past <= first + timedelta(days=most):
            raise ParameterError(f"from, to: must span 1 to {most} days, `to` not included")
        return first, past
