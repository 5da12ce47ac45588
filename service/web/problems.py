"""What is missing or unconfirmed, grouped by cause and then by org, with the command that would fetch it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from service.config import Config, Job
from service.status import NOT_REQUESTED, Status

MAX_CAUSES = 24
MAX_ORGS = 60
"""Lines of one cause: an org and a job each."""

Document = dict[str, Any]

_STATES = {"failed": "failed", "pending": "late", "running": "running"}
_RANK = {"failed": 0, "not requested": 1, "late": 2, "doubted": 3, "running": 4}
_TITLES = (
    (r"\b403\b|permission", "A permission is missing"),
    (r"\b401\b|credential|client_secret|token request", "The credentials were rejected"),
    (r"nextPageToken|truncated", "A page without its next token"),
    (r"no daemon currently holds", "No daemon holds the org"),
    (r"breaker is", "The org's breaker is open"),
    (r"rate-limited|429", "Rate-limited by the API"),
    (r"empty response for a window that has data", "An empty response over stored figures"),
    (r"being extracted", "Being extracted now"),
    (r"^due, not extracted yet", "Due, not extracted yet"),
)
# What differs between two messages of one cause: instants, ids, quoted text, numbers.
_PARTICULAR = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ][\d:.]+(?:Z|[+-]\d\d:?\d\d)?)?|\b[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}\b"
    r"|'[^']*'|\"[^\"]*\"|\d+"
)


@dataclass
class _Line:
    """The windows of one org and job with one cause."""

    org: str
    job: Job | None
    reason: str
    windows: int = 0
    spans: list[tuple[datetime, datetime]] = field(default_factory=list)


def problems(status: Status, config: Config) -> list[Document]:
    """Every cause, the most serious first, with a line for each org and job that it concerns."""
    causes: dict[tuple[str, str], dict[tuple[str, str], _Line]] = {}
    for org, job, state, reason, start, end in _entries(status):
        if org not in config.orgs:
            continue
        lines = causes.setdefault((state, _PARTICULAR.sub("…", reason)), {})
        known = config.jobs_of(config.orgs[org]).get(job or "")
        line = lines.setdefault((org, job or ""), _Line(org, known, reason))
        line.windows += 1
        line.spans.append((datetime.fromisoformat(start), datetime.fromisoformat(end)))
    ordered = sorted(
        causes.items(), key=lambda each: (_RANK[each[0][0]], -sum(x.windows for x in each[1].values()))
    )
    return [_cause(state, list(lines.values()), config) for (state, _), lines in ordered[:MAX_CAUSES]]


def _entries(status: Status) -> Iterator[tuple[str, str | None, str, str, str, str]]:
    """Org, job, state, reason, start and end of each window that is missing or unconfirmed."""
    for name, org in status["orgs"].items():
        works = [*((job, work["gaps"]) for job, work in org["jobs"].items()), (None, org["ad_hoc"]["gaps"])]
        for job, gaps in works:
            for gap in gaps:
                reason = gap["reason"].removeprefix(NOT_REQUESTED)
                state = _STATES[gap["state"]] if reason == gap["reason"] else "not requested"
                yield name, job, state, reason, gap["window_start"], gap["window_end"]
        for error in org["last_errors"]:
            yield name, error["job"], "doubted", error["reason"], error["window_start"], error["window_end"]


def _cause(state: str, lines: Sequence[_Line], config: Config) -> Document:
    return {
        "state": state,
        "title": title(lines[0].reason),
        "windows": sum(line.windows for line in lines),
        "orgs": len({line.org for line in lines}),
        "lines": [_line(line, config, state) for line in lines[:MAX_ORGS]],
        "more": max(0, len(lines) - MAX_ORGS),
    }


def title(reason: str) -> str:
    """A reason in a few words; the reason itself where it is none of the usual ones."""
    for pattern, words in _TITLES:
        if re.search(pattern, reason):
            return words
    first = re.split(r"[:;]", reason, maxsplit=1)[0].strip() or reason
    return first[:1].upper() + first[1:]


def _line(line: _Line, config: Config, state: str) -> Document:
    """The line of one org and job: its days, and the command that fetches them."""
    tz = config.orgs[line.org].tz
    first, last = min(start for start, _ in line.spans), max(end for _, end in line.spans)
    first_day, last_day = first.astimezone(tz).date(), _last_day(last, tz)
    document: Document = {
        "org": line.org,
        "job": None if line.job is None else line.job.name,
        "reason": line.reason,
        "windows": line.windows,
        "window": None if line.job is None else line.job.window,
        "first": first_day.isoformat(),
        "last": last_day.isoformat(),
        "timezone": config.orgs[line.org].timezone,
    }
    if state in {"failed", "late", "not requested", "doubted"}:
        document["command"] = backfill(line.org, line.job, first_day, last_day)
    return document


def backfill(org: str, job: Job | None, first: date, last: date) -> str:
    """The command that extracts these local days, at the job's granularity."""
    granularity = "" if job is None or job.granularity == "auto" else f" --granularity {job.granularity}"
    measure = "" if job is None or job.measure == "outcomes" else f" --measure {job.measure}"
    end = last + timedelta(days=1)
    span = f"--from {first.isoformat()} --to {end.isoformat()}"
    return f"flow-outcomes backfill --org {org} {span}{granularity}{measure}"


def _last_day(end: datetime, tz: ZoneInfo) -> date:
    """The local date of a span's last instant."""
    return (end - timedelta(microseconds=1)).astimezone(tz).date()
