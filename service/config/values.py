"""Parsers for the values of a configuration: durations, instants, off-peak hours, URLs, secrets.

Every parser raises ``ValueError`` with a description of a valid value, and never repeats the given value: it may
be a secret under the wrong key.
"""

from __future__ import annotations

import json
import os
import re
from calendar import monthrange
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

import isodate

from service.config import regions
from service.model import DIMENSIONS

SECRET_MIN = 8
"""Characters of the shortest secret; a shorter one occurs in ordinary words, which would be redacted too."""

_PERSONAL = frozenset(
    {"ani", "conversationId", "externalContactId", "sessionId", "externalOrganizationId", "userId"}
)
_LONGEST_BACK = timedelta(days=40 * 366)
_FIRST_YEAR, _LAST_YEAR = 2000, 2100
_OFF_PEAK = re.compile(r"([0-9]{2}):([0-9]{2})\s*-\s*([0-9]{2}):([0-9]{2})")
_HOST = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+")
_HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_DURATION = re.compile(r"P(?=.)([0-9.,]+[YMWD])*(T([0-9.,]+[HMS])+)?")


class FromEnvironment(str):
    """The text of an environment variable; where a number is expected, it is parsed as one."""

    __slots__ = ()


def dimensions(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of dimensions by which figures can be split, sorted."""
    if unknown := [name for name in names if name not in DIMENSIONS]:
        personal = [name for name in unknown if name in _PERSONAL]
        reason = f"; {', '.join(personal)} would store personal data, without a bound" if personal else ""
        raise ValueError(f"must be dimensions among {', '.join(DIMENSIONS)}{reason}")
    return tuple(sorted(names))


def step(window: str, granularity: str) -> str:
    """The granularity of a job's windows: as requested, ``auto`` for the finest; a month is daily at finest."""
    finest = "daily" if window == "month" else "hourly"
    return finest if granularity in ("auto", "hourly") else granularity


def from_text(value: object) -> object:
    """The number, list or object in an environment variable's JSON; a value of the file is returned unchanged."""
    if not isinstance(value, FromEnvironment):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def as_text(value: object) -> object:
    """An environment variable as plain text; a value of the file is returned unchanged."""
    return str(value) if isinstance(value, FromEnvironment) else value


def null_if_empty(value: object) -> object:
    """None for an environment variable that is empty or ``null``; any other value is returned unchanged."""
    return None if isinstance(value, FromEnvironment) and value.strip() in {"", "null"} else value


_HOST_NAME_EXPECTED = "must be a host name such as reports.example.com, without a scheme, path or wildcard"


def host_name(value: object) -> str:
    """Parse a host name or an IP address; a port is dropped, other alphabets are encoded as browsers send them."""
    text = _text(value, _HOST_NAME_EXPECTED).lower()
    try:
        return str(ip_address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        name = re.sub(r":[0-9]+\Z", "", text).removesuffix(".")
    try:
        name = name.encode("idna").decode()
    except UnicodeError:
        name = ""
    if not _HOST_NAME.fullmatch(name):
        raise ValueError(_HOST_NAME_EXPECTED)
    return name


def _text(value: object, expected: str) -> str:
    if not isinstance(value, str):
        raise ValueError(expected)  # noqa: TRY004 - pydantic collects only ValueError
    return value.strip()


def _parse_duration(text: str) -> tuple[int, timedelta] | None:
    """The months and the rest of an ISO 8601 duration; None where it is invalid or has a fraction of a month."""
    if not _DURATION.fullmatch(text):
        return None
    try:
        parsed = isodate.parse_duration(text)
    except (isodate.ISO8601Error, ValueError, ArithmeticError):
        return None
    if isinstance(parsed, timedelta):
        return 0, parsed
    months = parsed.years * 12 + parsed.months
    return (int(months), parsed.tdelta) if months == int(months) else None


def duration(
    least: timedelta = timedelta(0),
    most: timedelta = timedelta(days=3660),
    *,
    above: bool = False,
) -> Callable[[object], timedelta]:
    """A parser of ISO 8601 durations from ``least`` to ``most``; with ``above``, longer than ``least``."""
    lower = "more than" if above else "at least"
    bounds = f"{lower} {isodate.duration_isoformat(least)} and at most {isodate.duration_isoformat(most)}"
    expected = f"must be an ISO 8601 duration such as PT15M or P3D, {bounds}"

    def parse(value: object) -> timedelta:
        parsed = (0, value) if isinstance(value, timedelta) else _parse_duration(_text(value, expected))
        if parsed is None:
            raise ValueError(expected)
        months, rest = parsed
        if months:
            raise ValueError(f"{expected}; years and months have no fixed length, use days")
        if rest < least or rest > most or (above and rest == least):
            raise ValueError(f"must be {bounds}")
        return rest

    return parse


def optional(parse: Callable[[object], timedelta]) -> Callable[[object], timedelta | None]:
    """A parser that also takes None, and of an environment variable the empty text and ``null``."""
    return lambda value: None if is_null(value) else parse(value)


def optional_section(value: object) -> object:
    """A section that may be null; in an environment variable it is JSON."""
    return None if is_null(value) else from_text(value)


def is_null(value: object) -> bool:
    """Whether a value stands for no value."""
    return value is None or (isinstance(value, FromEnvironment) and value.strip() in {"", "null"})


@dataclass(frozen=True, slots=True)
class Since:
    """The start of a job's first window: a date, an instant, or a duration back from now.

    Attributes:
        fixed: the date or instant; a naive instant is in the org's time zone. None where the two durations apply.
        months: calendar months back from now.
        rest: elapsed time back from there.
    """

    fixed: date | datetime | None = None
    months: int = 0
    rest: timedelta = timedelta(0)

    def __str__(self) -> str:
        """The text of the file, or an equal one."""
        if self.fixed is not None:
            return self.fixed.isoformat()
        rest = isodate.duration_isoformat(self.rest)[1:] if self.rest else ""
        return f"P{self.months}M{rest}" if self.months else f"P{rest or '0D'}"

    def resolve(self, now: datetime, tz: ZoneInfo) -> datetime:
        """The instant, in UTC; ``tz`` is the time zone of a date or a naive instant."""
        if isinstance(self.fixed, datetime):
            at = self.fixed if self.fixed.tzinfo else self.fixed.replace(tzinfo=tz)
        elif self.fixed is not None:
            at = datetime.combine(self.fixed, time(), tzinfo=tz)
        else:
            local = now.astimezone(tz)
            year, month = divmod(local.year * 12 + local.month - 1 - self.months, 12)
            day = min(local.day, monthrange(year, month + 1)[1])
            at = local.replace(year=year, month=month + 1, day=day).astimezone(UTC) - self.rest
        return at.astimezone(UTC)


_SINCE = "must be a date (2024-01-01), an ISO 8601 instant, or a duration back from now (P30D)"


def since(value: object) -> Since:
    """Parse a job's ``since``: a year from 2000 to 2100, or at most forty years back."""
    if isinstance(value, Since):
        return value
    if isinstance(value, date):
        fixed = value
    else:
        text = _text(value, _SINCE)
        if text.startswith("P"):
            back = _parse_duration(text)
            if back is None or back[0] > 40 * 12 or back[1] > _LONGEST_BACK:
                raise ValueError(f"{_SINCE}, at most forty years back")
            return Since(months=back[0], rest=back[1])
        try:
            fixed = datetime.fromisoformat(text) if ":" in text or "T" in text else date.fromisoformat(text)
        except ValueError:
            raise ValueError(_SINCE) from None
    if not _FIRST_YEAR <= fixed.year <= _LAST_YEAR:
        raise ValueError(f"{_SINCE}, from {_FIRST_YEAR} to {_LAST_YEAR}")
    return Since(fixed)


def day(value: object) -> date:
    """Parse a date without a time of day."""
    expected = f"must be a date such as 2024-03-01, from {_FIRST_YEAR} to {_LAST_YEAR}"
    if isinstance(value, str):
        try:
            value = date.fromisoformat(value.strip())
        except ValueError:
            raise ValueError(expected) from None
    if not isinstance(value, date) or isinstance(value, datetime) or not _FIRST_YEAR <= value.year <= _LAST_YEAR:
        raise ValueError(expected)
    return value


@dataclass(frozen=True, slots=True)
class OffPeak:
    """Hours of the day in UTC, [start, end), which may pass midnight."""

    start: time
    end: time

    def __str__(self) -> str:
        """The hours as in the file."""
        return f"{self.start:%H:%M}-{self.end:%H:%M}"

    def contains(self, at: datetime) -> bool:
        """Whether an aware instant is within the hours."""
        clock = at.astimezone(UTC).time()
        if self.start < self.end:
            return self.start <= clock < self.end
        return clock >= self.start or clock < self.end

    def next_open(self, at: datetime) -> datetime:
        """The first instant at or after ``at`` within the hours, in UTC."""
        at = at.astimezone(UTC)
        if self.contains(at):
            return at
        opening = datetime.combine(at.date(), self.start, tzinfo=UTC)
        return opening if opening >= at else opening + timedelta(days=1)


def off_peak(value: object) -> OffPeak | None:
    """Parse ``"02:00-05:00"``; None, or an environment variable that is empty or ``null``, is any time."""
    expected = 'must be hours in UTC such as "02:00-05:00", or null for any time'
    if value is None or isinstance(value, OffPeak):
        return value
    if null_if_empty(value) is None:
        return None
    match = _OFF_PEAK.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(expected)
    hour, minute, end_hour, end_minute = map(int, match.groups())
    try:
        start = time(hour, minute)
        end = time(0) if (end_hour, end_minute) == (24, 0) else time(end_hour, end_minute)
    except ValueError:
        raise ValueError(expected) from None
    if start == end:
        raise ValueError("starts and ends at the same time; use null for any time")
    return OffPeak(start, end)


def url(value: object) -> str:
    """Parse the root of an API: https, or plain http on this machine; the trailing slash is removed."""
    expected = "must be an https URL such as https://api.mypurecloud.com"
    text = _text(value, expected)
    if not text.isprintable() or " " in text or "\\" in text or not text.isascii():
        raise ValueError(expected)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(expected) from None
    if parts.scheme not in {"http", "https"} or not host or port == 0:
        raise ValueError(expected)
    if "@" in parts.netloc:
        raise ValueError("must not contain a user or password; use client_id and client_secret")
    if "?" in text or "#" in text:
        raise ValueError("must not contain a query or a fragment")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError("must be https; plain http is accepted only for loopback addresses")
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def is_loopback(host: str) -> bool:
    """Whether a host is ``localhost``, 127.0.0.0/8 or ::1."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def region(value: object) -> str:
    """Parse a Genesys Cloud region: its domain, its AWS name, or the host of one of its services."""
    expected = (
        "must be the region's domain such as mypurecloud.com or usw2.pure.cloud, without https://,"
        " or its AWS name such as us-east-1"
    )
    text = regions.domain(_text(value, expected).lower())
    if not _HOST.fullmatch(text) or _is_numeric(text):
        raise ValueError(expected)
    return text


def _is_numeric(host: str) -> bool:
    """Whether a host consists of digits and dots, like an IPv4 address."""
    return host.replace(".", "").isdigit()


def timezone(value: object) -> str:
    """Parse the name of an IANA time zone."""
    expected = "must be an IANA time zone such as UTC or Europe/Berlin"
    text = _text(value, expected)
    known = available_timezones() - {"localtime"}
    if text not in known:
        similar = get_close_matches(text, sorted(known), n=1)
        raise ValueError(f"{expected}; did you mean {similar[0]}?" if similar else expected)
    return text


def non_empty(value: str) -> str:
    """Reject a text that is blank or has control characters."""
    if not value.strip():
        raise ValueError("must not be empty")
    if not value.isprintable():
        raise ValueError("must not contain control characters or line breaks")
    return value


def secret(value: str) -> str:
    """Reject a secret that is blank, has control characters, or is too short to be redacted."""
    non_empty(value)
    if len(value) < SECRET_MIN:
        raise ValueError(
            f"must have at least {SECRET_MIN} characters; a shorter secret cannot be redacted from the log"
        )
    return value


def path(value: object) -> Path:
    """Parse a path; ``~`` is the user's home folder."""
    if isinstance(value, Path):
        return value
    expected = "must be a path"
    text = _text(value, expected)
    if not text or "\0" in text:
        raise ValueError(expected)
    try:
        return Path(os.fsdecode(text.encode("utf-8", "surrogateescape"))).expanduser()
    except RuntimeError:
        raise ValueError("refers to a home folder that does not exist") from None


def distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    """Reject a list with duplicate items."""
    if len(set(values)) < len(values):
        raise ValueError("has a duplicate item")
    return values
