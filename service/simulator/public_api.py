"""The public API: authentication, permissions and the limit per minute."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping

from aiohttp import web

from service.simulator import architect, flow_aggregates, org_settings
from service.simulator.aggregates_query import digest_of
from service.simulator.api_error import ApiError
from service.simulator.architect import answer_names
from service.simulator.builder_query import decode
from service.simulator.fault_injection import inject_query_fault, too_many_requests
from service.simulator.faults import RequestFaults
from service.simulator.instants import Now
from service.simulator.jobs import Jobs, answer_job, requested_page
from service.simulator.oauth import Tokens, missing_permission
from service.simulator.organisation import LiveOrg
from service.simulator.state import Arrival
from service.simulator.wire import Reply, error_reply, send

PUBLIC = {
    flow_aggregates.QUERY: "aggregates",
    flow_aggregates.JOBS: "jobs",
    architect.FLOWS: "names",
    architect.OUTCOMES: "names",
    org_settings.DIVISIONS: "settings",
    org_settings.DIVISIONS_PAGED: "settings",
    org_settings.RETENTION: "settings",
    architect.MILESTONES: "names",
}
"""The kind of request by path; see :class:`Arrival`."""

_SIDE = ("names", "settings")
_VIEW = "analytics:flowAggregate:view"
_NAMES = {
    architect.FLOWS: "architect:flow:view",
    architect.OUTCOMES: "architect:flowOutcome:view",
    architect.MILESTONES: "architect:flowMilestone:view",
}


class PublicApi:
    """Answers requests to the flow-aggregates API and to the lists of names.

    Attributes:
        jobs: the jobs of each org, by client id.
    """

    def __init__(self, orgs: Mapping[str, LiveOrg], tokens: Tokens, read_clocks: Callable[[], Now]) -> None:
        self.jobs = {client_id: Jobs() for client_id in orgs}
        self._orgs = orgs
        self._tokens = tokens
        self._read_clocks = read_clocks

    async def answer(self, request: web.Request, arrival: Arrival) -> web.StreamResponse:
        """Answer one request. Errors have a contextId; every response has the rate limit headers."""
        body = await request.read()
        now = self._read_clocks()
        org: LiveOrg | None = None
        faults: RequestFaults | None = None
        try:
            org = self._orgs[self._tokens.check(request.headers.get("Authorization"), now.monotonic)]
            faults = org.fault_plan.for_request(arrival.kind if arrival.kind in _SIDE else "query")
            if not org.minute_limit.arrive(now.pace):
                reply = too_many_requests(org, now.pace, str(org.minute_limit.reset(now.pace)))
            else:
                reply = await self._route(org, request, arrival, body, faults)
        except ApiError as error:
            error.context_id = str(uuid.uuid4())
            reply = error_reply(error)
        if org is None or faults is None:
            return reply.response()
        headers = org.minute_limit.headers(now.pace)
        if fault := faults.fire("rate_headers"):
            headers |= {str(name): str(value) for name, value in _mapping(fault.value).items()}
        reply = Reply(reply.status, reply.body, {**reply.headers, **headers}, reply.content_type)
        return await send(request, reply, faults)

    async def _route(
        self, org: LiveOrg, request: web.Request, arrival: Arrival, body: bytes, faults: RequestFaults
    ) -> Reply:
        if arrival.kind == "names":
            return self._names(org, request)
        if arrival.kind == "settings":
            if request.method != "GET":
                raise ApiError(405, "method.not.allowed", "HTTP 405 Method Not Allowed")
            settings = org_settings.answer_settings(org, request.path, request.query)
            if fault := faults.fire("settings_body"):
                return Reply(200, json.dumps({} if fault.value is None else fault.value).encode())
            return settings
        if not org.settings.permitted:
            raise missing_permission(_VIEW)
        jobs = self.jobs[org.client_id]
        document = self._decode_post(request, body)
        arrival.digest = request.path if document is None else digest_of(document)
        arrival.page = faults.page = requested_page(jobs, request)
        with org.single_flight.track(arrival.digest):
            pace = self._read_clocks().pace
            if reply := await inject_query_fault(org, request, faults, pace, _VIEW, document=document):
                return reply
            if arrival.kind == "jobs":
                return answer_job(org, jobs, request, document, faults, self._read_clocks())
            if request.method != "POST":
                raise ApiError(405, "method.not.allowed", "HTTP 405 Method Not Allowed")
            return Reply(200, flow_aggregates.answer(org, document, faults, self._read_clocks()))

    def _names(self, org: LiveOrg, request: web.Request) -> Reply:
        if request.method != "GET":
            raise ApiError(405, "method.not.allowed", "HTTP 405 Method Not Allowed")
        if not org.settings.names_permitted:
            raise missing_permission(_NAMES[request.path])
        return answer_names(org, request.path, request.query, self._read_clocks())

    @staticmethod
    def _decode_post(request: web.Request, body: bytes) -> object:
        """Return the JSON of a POST; None for any other method."""
        if request.method != "POST":
            return None
        if request.content_type != "application/json":
            raise ApiError(415, "unsupported.media.type", "The content type must be application/json")
        return decode(body)


def _mapping(value: object) -> Mapping[object, object]:
    return value if isinstance(value, Mapping) else {"inin-ratelimit-allowed": value}
