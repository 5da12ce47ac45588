"""Jobs of the flow-aggregates API: started, polled, read page by page, then deleted or left to expire."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
from aiohttp import web

from service.simulator.aggregates_query import parse_query
from service.simulator.api_error import ApiError, bad_request
from service.simulator.faults import RequestFaults
from service.simulator.flow_aggregates import JOBS, Result, corrupt_results, query_results
from service.simulator.instants import Now
from service.simulator.organisation import LiveOrg
from service.simulator.wire import Reply, json_reply, reset_connection


@dataclass(slots=True)
class Job:
    """A job.

    Attributes:
        id: the job's id.
        digest: a digest of the query.
        results: results of one group in one bucket each.
        page_size: results per page.
        expires: when the job expires, in seconds of the monotonic clock.
        polls: how often the state was requested.
        read: whether the last page was read.
        cursors: index into ``results`` and expiry, by cursor.
    """

    id: str
    digest: str
    results: list[Result]
    page_size: int
    expires: float
    polls: int = 0
    read: bool = False
    cursors: dict[str, tuple[int, float]] = field(default_factory=dict)


class Jobs:
    """An org's jobs.

    Attributes:
        known: jobs that were not deleted, by id.
        begun: how many jobs were started.
        deleted: how many jobs were deleted.
        most_alike: the most unread jobs that ever existed at once for one query.
    """

    def __init__(self) -> None:
        self.known: dict[str, Job] = {}
        self.begun = 0
        self.deleted = 0
        self.most_alike = 0

    def add(self, job: Job) -> None:
        """Add a job that was started."""
        self.known[job.id] = job
        self.begun += 1
        alike = sum(each.digest == job.digest and not each.read for each in self.known.values())
        self.most_alike = max(self.most_alike, alike)


def answer_job(
    org: LiveOrg, jobs: Jobs, request: web.Request, query: object, faults: RequestFaults, now: Now
) -> Reply:
    """Answer a request to ``…/jobs``, ``…/jobs/{id}`` or ``…/jobs/{id}/results``; ``query`` is the body's JSON."""
    job_id, _, rest = request.path.removeprefix(JOBS).removeprefix("/").partition("/")
    match (request.method, bool(job_id), rest):
        case ("POST", False, ""):
            return _start(org, jobs, request, query, faults, now)
        case ("GET", True, ""):
            return _state(org, _job(jobs, job_id), faults, now)
        case ("GET", True, "results"):
            return _page(org, _job(jobs, job_id), request.query, faults, now)
        case ("DELETE", True, ""):
            del jobs.known[_job(jobs, job_id).id]
            jobs.deleted += 1
            return Reply(204, b"")
    raise ApiError(405, "method.not.allowed", "HTTP 405 Method Not Allowed")


def requested_page(jobs: Jobs, request: web.Request) -> int:
    """Return the number of the page that a request is for, from 1."""
    for job in jobs.known.values():
        if cursor := job.cursors.get(request.query.get("cursor", "")):
            return cursor[0] // job.page_size + 1
    return 1


def _start(
    org: LiveOrg, jobs: Jobs, request: web.Request, document: object, faults: RequestFaults, now: Now
) -> Reply:
    query = parse_query(document, job=True)
    if faults.fire("job_refused"):
        raise ApiError(503, "service.unavailable", "The service is unavailable")
    results = [
        {"group": result["group"], "data": [datum]}
        for result in query_results(org, query, faults, now)
        for datum in result["data"]
    ]
    results.sort(key=lambda result: str(result["data"][0]["interval"]))
    lifetime = org.settings.job_lifetime
    job = Job(str(uuid.uuid4()), query.digest, results, query.page_size, now.monotonic + lifetime)
    jobs.add(job)
    if faults.fire("job_lost"):
        reset_connection(request)
    return json_reply({"jobId": job.id}, 202)


def _job(jobs: Jobs, job_id: str) -> Job:
    job = jobs.known.get(job_id)
    if job is None:
        raise ApiError(404, "not.found", f"There is no job {job_id}")
    return job


def _state(org: LiveOrg, job: Job, faults: RequestFaults, now: Now) -> Reply:
    job.polls += 1
    limit = faults.due("job_result_limit")
    if limit is not None and len(job.results) > int(str(limit.value or 1)):
        faults.count("job_result_limit")
        state = "FAILED"
    elif fault := faults.fire("job_state"):
        state = str(fault.value or "FAILED")
    elif now.monotonic >= job.expires:
        state = "EXPIRED"
    else:
        states = ("QUEUED", *("PENDING",) * (org.settings.job_polls - 1))[: org.settings.job_polls]
        state = states[job.polls - 1] if job.polls <= len(states) else "FULFILLED"
    body: dict[str, object] = {"state": state}
    if state == "FAILED":
        body["errorMessage"] = "the query could not be run"
    return json_reply(body)


def _page(org: LiveOrg, job: Job, parameters: Mapping[str, str], faults: RequestFaults, now: Now) -> Reply:
    if unknown := parameters.keys() - {"cursor"}:
        raise bad_request(f"unknown parameters: {', '.join(sorted(unknown))}")
    if job.polls < org.settings.job_polls:
        raise bad_request("The job is not fulfilled")
    cursor, start = parameters.get("cursor"), 0
    if cursor is not None:
        known = job.cursors.get(cursor)
        if known is None:
            raise bad_request("The cursor is not valid", "invalid.cursor")
        if now.monotonic >= min(known[1], job.expires) or faults.fire("cursor_expired"):
            raise ApiError(410, "cursor.expired", "The cursor has expired")
        start = known[0]
    page: Result = {"results": _copy(job.results[start : start + job.page_size])}
    after = start + job.page_size
    if fault := faults.fire("endless"):
        after = start
        page["results"] = page["results"] if fault.value == "repeated" else []
    if after < len(job.results):
        page["cursor"] = f"{secrets.token_urlsafe(18)}+/ü=="
        job.cursors[page["cursor"]] = (after, now.monotonic + org.settings.cursor_lifetime)
        if cursor is not None and faults.fire("repeated_token"):
            page["cursor"] = cursor
    else:
        job.read = True
    return Reply(200, corrupt_results(page, faults))


def _copy(results: list[Result]) -> list[Result]:
    """Return a copy that faults may change."""
    copy: list[Result] = msgspec.json.decode(msgspec.json.encode(results))
    return copy
