"""The values a configuration is written in: durations, instants, off-peak hours, URLs, secrets.

Every reader raises ``ValueError`` with a sentence that says what would be right, and never repeats what was
written: it may be a secret in the wrong place.
"""

from __future__ import annotations

import json
import re
from calendar import monthrange
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

import isodate

SECRET_MIN = 8
"""Characters of a secret; fewer stand in ordinary words too, which would then be hidden with it."""

_LONGEST_BACK = timedelta(days=40 * 366)
_FIRST_YEAR, _LAST_YEAR = 2000, 2100
_OFF_PEAK = re.compile(r"([0-9]{2}):([0-9]{2})\s*-\s*([0-9]{2}):([0-9]{2})")
_HOST = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+")
_DURATION = re.compile(r"P(?=.)([0-9.,]+[YMWD])*(T([0-9.,]+[HMS])+)?")


class FromEnvironment(str):
    """The text of an environment variable: where a number is wanted, it may be read as one."""

    __slots__ = ()


def from_text(value: object) -> object:
    """A number, list or object out of an environment variable's JSON; what stands in YAML is left as it is."""
    if not isinstance(value, FromEnvironment):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def plain(value: object) -> object:
    """The text itself, wherever it came from."""
    return str(value) if isinstance(value, FromEnvironment) else value


def _text(value: object, wanted: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be {wanted}")  # noqa: TRY004 - pydantic collects ValueError alone
    return value.strip()


def _parsed_duration(text: str) -> tuple[int, timedelta] | None:
    """Whole months and the rest of an ISO 8601 duration; None where it is none, or has a fraction of a month."""
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
    """A reader of ISO 8601 durations from ``least`` (not itself, where ``above``) to ``most``."""
    lower = "more than" if above else "at least"
    bounds = f"{lower} {isodate.duration_isoformat(least)} and at most {isodate.duration_isoformat(most)}"
    wanted = f"an ISO 8601 duration such as PT15M or P3D, {bounds}"

    def read(value: object) -> timedelta:
        parsed = (0, value) if isinstance(value, timedelta) else _parsed_duration(_text(value, wanted))
        if parsed is None:
            raise ValueError(f"must be {wanted}")
        months, rest = parsed
        if months:
            raise ValueError(f"must be {wanted}; years and months have no fixed length, count in days")
        if rest < least or rest > most or (above and rest == least):
            raise ValueError(f"must be {bounds}")
        return rest

    return read


@dataclass(frozen=True, slots=True)
class Since:
    """Where a job's windows begin: a date, an instant, or so far back from now.

    Attributes:
        fixed: the date, or the instant; a naive one is local to the org. None where ``months`` and ``rest`` count.
        months: calendar months back from now.
        rest: elapsed time back from now, after the months.
    """

    fixed: date | datetime | None = None
    months: int = 0
    rest: timedelta = timedelta(0)

    def resolve(self, now: datetime, tz: ZoneInfo) -> datetime:
        """The instant, in UTC; ``tz`` says where a date begins."""
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


_SINCE = "a date (2024-01-01), an ISO 8601 instant, or a duration back from now (P30D)"


def since(value: object) -> Since:
    """Read a job's ``since``; years from 2000 to 2100, at most forty years back."""
    if isinstance(value, Since):
        return value
    if isinstance(value, date):
        fixed = value
    else:
        text = _text(value, _SINCE)
        if text.startswith("P"):
            back = _parsed_duration(text)
            if back is None or back[0] > 40 * 12 or back[1] > _LONGEST_BACK:
                raise ValueError(f"must be {_SINCE}, at most forty years back")
            return Since(months=back[0], rest=back[1])
        try:
            fixed = datetime.fromisoformat(text) if ":" in text or "T" in text else date.fromisoformat(text)
        except ValueError:
            raise ValueError(f"must be {_SINCE}") from None
    if not _FIRST_YEAR <= fixed.year <= _LAST_YEAR:
        raise ValueError(f"must be {_SINCE}, from {_FIRST_YEAR} to {_LAST_YEAR}")
    return Since(fixed)


def day(value: object) -> date:
    """Read a date without a time of day."""
    wanted = f"must be a date such as 2024-03-01, from {_FIRST_YEAR} to {_LAST_YEAR}"
    if isinstance(value, str):
        try:
            value = date.fromisoformat(value.strip())
        except ValueError:
            raise ValueError(wanted) from None
    if not isinstance(value, date) or isinstance(value, datetime) or not _FIRST_YEAR <= value.year <= _LAST_YEAR:
        raise ValueError(wanted)
    return value


@dataclass(frozen=True, slots=True)
class OffPeak:
    """Hours of the day in UTC, [start, end), that may pass midnight."""

    start: time
    end: time

    def contains(self, at: datetime) -> bool:
        """Whether an aware instant lies within these hours."""
        clock = at.astimezone(UTC).time()
        if self.start < self.end:
            return self.start <= clock < self.end
        return clock >= self.start or clock < self.end

    def next_open(self, at: datetime) -> datetime:
        """The first instant at or after ``at`` within these hours, in UTC."""
        at = at.astimezone(UTC)
        if self.contains(at):
            return at
        opening = datetime.combine(at.date(), self.start, tzinfo=UTC)
        return opening if opening >= at else opening + timedelta(days=1)


def off_peak(value: object) -> OffPeak | None:
    """Read ``"02:00-05:00"``; None is any time, as are ``null`` and nothing in an environment variable."""
    wanted = 'must be hours in UTC such as "02:00-05:00", or null for any time'
    if value is None or isinstance(value, OffPeak):
        return value
    if isinstance(value, FromEnvironment) and value.strip() in {"", "null"}:
        return None
    match = _OFF_PEAK.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(wanted)
    hour, minute, end_hour, end_minute = map(int, match.groups())
    try:
        start = time(hour, minute)
        end = time(0) if (end_hour, end_minute) == (24, 0) else time(end_hour, end_minute)
    except ValueError:
        raise ValueError(wanted) from None
    if start == end:
        raise ValueError("begins when it ends; use null for any time")
    return OffPeak(start, end)


def url(value: object) -> str:
    """Read the root of an API: https, or plain http on this machine; without its trailing slash."""
    wanted = "must be an https URL such as https://api.mypurecloud.com"
    text = _text(value, wanted[8:])
    if not text.isprintable() or " " in text or "\\" in text or not text.isascii():
        raise ValueError(wanted)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(wanted) from None
    if parts.scheme not in {"http", "https"} or not host or port == 0:
        raise ValueError(wanted)
    if "@" in parts.netloc:
        raise ValueError("must not hold a user or password; they belong in client_id and client_secret")
    if "?" in text or "#" in text:
        raise ValueError("must not hold a query or a fragment")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError("must be https; plain http is accepted for loopback addresses alone")
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: ``localhost``, 127.0.0.0/8 or ::1."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def region(value: object) -> str:
    """Read the domain of a Genesys Cloud region."""
    wanted = "must be the region's domain such as mypurecloud.com or usw2.pure.cloud, without https://"
    text = _text(value, wanted[8:]).lower()
    if not _HOST.fullmatch(text) or ip_like(text):
        raise ValueError(wanted)
    return text


def ip_like(host: str) -> bool:
    """Whether a host is made of figures and dots alone."""
    return host.replace(".", "").isdigit()


def timezone(value: object) -> str:
    """Read an IANA time zone's name."""
    wanted = "must be an IANA time zone such as UTC or Europe/Berlin"
    text = _text(value, wanted[8:])
    if text not in available_timezones() or text == "localtime":
        raise ValueError(wanted)
    return text


def filled(value: str) -> str:
    """Refuse a text that is blank or holds control characters."""
    if not value.strip():
        raise ValueError("must not be empty")
    if not value.isprintable():
        raise ValueError("must not hold control characters or line breaks")
    return value


def secret(value: str) -> str:
    """Refuse a secret that is blank, holds control characters, or is too short to be found in other texts."""
    filled(value)
    if len(value) < SECRET_MIN:
        raise ValueError(f"must have at least {SECRET_MIN} characters; a shorter one cannot be hidden in the log")
    return value


def path(value: object) -> Path:
    """Read a path; ``~`` is the user's home."""
    if isinstance(value, Path):
        return value
    wanted = "must be a path"
    text = _text(value, wanted[8:])
    if not text or "\0" in text:
        raise ValueError(wanted)
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError("names a home folder that does not exist") from None


def distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse a list that names something twice."""
    if len(set(values)) < len(values):
        raise ValueError("names something twice")
    return values
