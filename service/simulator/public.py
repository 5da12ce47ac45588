"""The public API's front room: who asks, by which permission, and within how many a minute."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping

from aiohttp import web

from service.simulator import architect, flow_aggregates
from service.simulator.aggregates_engine import digest_of
from service.simulator.architect import answer_names
from service.simulator.engine import decode
from service.simulator.fault_injection import before_query, too_many
from service.simulator.faults import Occasion
from service.simulator.instants import Now
from service.simulator.jobs import Jobs, answer_job, page_asked_for
from service.simulator.oauth import Tokens, missing_permission
from service.simulator.organisation import LiveOrg
from service.simulator.refusal import Refusal
from service.simulator.state import Arrival
from service.simulator.wire import Reply, refused, send

PUBLIC = {
    flow_aggregates.QUERY: "aggregates",
    flow_aggregates.JOBS: "jobs",
    architect.FLOWS: "names",
    architect.OUTCOMES: "names",
}
"""Paths and the kinds of their requests."""

_VIEW = "analytics:flowAggregate:view"
_NAMES = {architect.FLOWS: "architect:flow:view", architect.OUTCOMES: "architect:flowOutcome:view"}


class PublicApi:
    """Answers the flow-aggregates API.

    Attributes:
        jobs: every org's, by client id.
    """

    def __init__(self, orgs: Mapping[str, LiveOrg], tokens: Tokens, hands: Callable[[], Now]) -> None:
        self.jobs = {client_id: Jobs() for client_id in orgs}
        self._orgs = orgs
        self._tokens = tokens
        self._hands = hands

    async def answer(self, request: web.Request, arrival: Arrival) -> web.StreamResponse:
        """Answer one request; its errors tell a contextId, and every answer the limit."""
        body = await request.read()
        now = self._hands()
        org: LiveOrg | None = None
        occasion: Occasion | None = None
        try:
            org = self._orgs[self._tokens.check(request.headers.get("Authorization"), now.monotonic)]
            occasion = org.faults.occasion("names" if arrival.kind == "names" else "query")
            if not org.minute.arrive(now.pace):
                reply = too_many(org, now.pace, str(org.minute.reset(now.pace)))
            else:
                reply = await self._routed(org, request, arrival, body, occasion)
        except Refusal as refusal:
            refusal.context_id = str(uuid.uuid4())
            reply = refused(refusal)
        if org is None or occasion is None:
            return reply.response()
        told = org.minute.headers(now.pace)
        if fault := occasion.strike("rate_headers"):
            told |= {str(name): str(value) for name, value in _mapping(fault.value).items()}
        reply = Reply(reply.status, reply.body, {**reply.headers, **told}, reply.content_type)
        return await send(request, reply, occasion)

    async def _routed(
        self, org: LiveOrg, request: web.Request, arrival: Arrival, body: bytes, occasion: Occasion
    ) -> Reply:
        if arrival.kind == "names":
            return self._names(org, request)
        if not org.settings.permitted:
            raise missing_permission(_VIEW)
        jobs = self.jobs[org.client_id]
        asked = self._body(request, body)
        arrival.digest = digest_of(asked) if asked is not None else request.path
        arrival.page = occasion.page = page_asked_for(jobs, request)
        with org.flight.of(arrival.digest):
            if struck := await before_query(org, request, occasion, self._hands().pace, _VIEW):
                return struck
            if arrival.kind == "jobs":
                return answer_job(org, jobs, request, asked, occasion, self._hands())
            if request.method != "POST":
                raise Refusal(405, "method.not.allowed", "HTTP 405 Method Not Allowed")
            return Reply(200, flow_aggregates.answer(org, asked, occasion, self._hands()))

    def _names(self, org: LiveOrg, request: web.Request) -> Reply:
        if request.method != "GET":
            raise Refusal(405, "method.not.allowed", "HTTP 405 Method Not Allowed")
        if not org.settings.names_permitted:
            raise missing_permission(_NAMES[request.path])
        return answer_names(org, request.path, request.query, self._hands())

    @staticmethod
    def _body(request: web.Request, body: bytes) -> object:
        """The JSON of a POST; None of anything else."""
        if request.method != "POST":
            return None
        if request.content_type != "application/json":
            raise Refusal(415, "unsupported.media.type", "The content type must be application/json")
        return decode(body)


def _mapping(value: object) -> Mapping[object, object]:
    return value if isinstance(value, Mapping) else {"inin-ratelimit-allowed": value}
