"""The flow-aggregates dialect's jobs: begun, asked after, read page by page, deleted, or left to expire."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
from aiohttp import web

from service.simulator.aggregates_engine import parse_query
from service.simulator.faults import Occasion
from service.simulator.flow_aggregates import JOBS, Result, results_of, spoilt
from service.simulator.instants import Now
from service.simulator.organisation import LiveOrg
from service.simulator.refusal import Refusal, bad_request
from service.simulator.wire import Reply, document, reset


@dataclass(slots=True)
class Job:
    """A job.

    Attributes:
        id: its name in the API.
        digest: of the query that it was begun with.
        results: one group in one bucket each.
        page_size: of these a page.
        expires: seconds of the monotonic clock.
        asked: how often its state was asked for.
        read: whether the last page was read.
        cursors: place in ``results`` by cursor, with when it expires.
    """

    id: str
    digest: str
    results: list[Result]
    page_size: int
    expires: float
    asked: int = 0
    read: bool = False
    cursors: dict[str, tuple[int, float]] = field(default_factory=dict)


class Jobs:
    """An org's jobs that were not deleted.

    Attributes:
        begun, deleted: how many.
        most_alike: the most that ever were there at once for one query.
    """

    def __init__(self) -> None:
        self.known: dict[str, Job] = {}
        self.begun = 0
        self.deleted = 0
        self.most_alike = 0

    def add(self, job: Job) -> None:
        """A job was begun."""
        self.known[job.id] = job
        self.begun += 1
        alike = sum(each.digest == job.digest and not each.read for each in self.known.values())
        self.most_alike = max(self.most_alike, alike)


def answer_job(
    org: LiveOrg, jobs: Jobs, request: web.Request, asked: object, occasion: Occasion, now: Now
) -> Reply:
    """One request to ``…/jobs``, ``…/jobs/{id}`` or ``…/jobs/{id}/results``; ``asked`` is the body's JSON."""
    job_id, _, rest = request.path.removeprefix(JOBS).removeprefix("/").partition("/")
    match (request.method, bool(job_id), rest):
        case ("POST", False, ""):
            return _begin(org, jobs, request, asked, occasion, now)
        case ("GET", True, ""):
            return _state(org, _job(jobs, job_id), occasion, now)
        case ("GET", True, "results"):
            return _page(org, _job(jobs, job_id), request.query, occasion, now)
        case ("DELETE", True, ""):
            del jobs.known[_job(jobs, job_id).id]
            jobs.deleted += 1
            return Reply(204, b"")
    raise Refusal(405, "method.not.allowed", "HTTP 405 Method Not Allowed")


def page_asked_for(jobs: Jobs, request: web.Request) -> int:
    """The number of the page that a request asks for, from 1."""
    for job in jobs.known.values():
        if found := job.cursors.get(request.query.get("cursor", "")):
            return found[0] // job.page_size + 1
    return 1


def _begin(org: LiveOrg, jobs: Jobs, request: web.Request, asked: object, occasion: Occasion, now: Now) -> Reply:
    query = parse_query(asked, job=True)
    if occasion.strike("job_refused"):
        raise Refusal(503, "service.unavailable", "The service is not available now")
    results = [
        {"group": result["group"], "data": [datum]}
        for result in results_of(org, query, occasion, now)
        for datum in result["data"]
    ]
    results.sort(key=lambda result: str(result["data"][0]["interval"]))
    lifetime = org.settings.job_lifetime
    job = Job(str(uuid.uuid4()), query.digest, results, query.page_size, now.monotonic + lifetime)
    jobs.add(job)
    if occasion.strike("job_lost"):
        reset(request)
    return document({"jobId": job.id}, 202)


def _job(jobs: Jobs, job_id: str) -> Job:
    job = jobs.known.get(job_id)
    if job is None:
        raise Refusal(404, "not.found", f"There is no job {job_id}")
    return job


def _state(org: LiveOrg, job: Job, occasion: Occasion, now: Now) -> Reply:
    job.asked += 1
    if fault := occasion.strike("job_state"):
        state = str(fault.value or "FAILED")
    elif now.monotonic >= job.expires:
        state = "EXPIRED"
    else:
        states = ("QUEUED", *("PENDING",) * (org.settings.job_polls - 1))[: org.settings.job_polls]
        state = states[job.asked - 1] if job.asked <= len(states) else "FULFILLED"
    told: dict[str, object] = {"state": state}
    if state == "FAILED":
        told["errorMessage"] = "the query could not be run"
    return document(told)


def _page(org: LiveOrg, job: Job, asked: Mapping[str, str], occasion: Occasion, now: Now) -> Reply:
    if unknown := asked.keys() - {"cursor"}:
        raise bad_request(f"unknown parameters: {', '.join(sorted(unknown))}")
    if job.asked < org.settings.job_polls:
        raise bad_request("The job is not fulfilled")
    cursor, place = asked.get("cursor"), 0
    if cursor is not None:
        found = job.cursors.get(cursor)
        if found is None:
            raise bad_request("The cursor is not valid", "invalid.cursor")
        if now.monotonic >= min(found[1], job.expires) or occasion.strike("cursor_expired"):
            raise Refusal(410, "cursor.expired", "The cursor has expired")
        place = found[0]
    page: Result = {"results": json_copy(job.results[place : place + job.page_size])}
    after = place + job.page_size
    if after < len(job.results):
        page["cursor"] = f"{secrets.token_urlsafe(18)}+/ü=="
        job.cursors[page["cursor"]] = (after, now.monotonic + org.settings.cursor_lifetime)
        if cursor is not None and occasion.strike("repeated_token"):
            page["cursor"] = cursor
    else:
        job.read = True
    return Reply(200, spoilt(page, occasion))


def json_copy(results: list[Result]) -> list[Result]:
    """A copy that faults may change."""
    copy: list[Result] = msgspec.json.decode(msgspec.json.encode(results))
    return copy
