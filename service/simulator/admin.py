"""The simulator's own endpoints, for tests that run in another process."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import cast

import msgspec
from aiohttp import web

from service.simulator.api_error import ApiError, bad_request
from service.simulator.buckets import TimeGroup
from service.simulator.faults import Fault
from service.simulator.flow_measures import format_stats
from service.simulator.instants import format_instant, to_milliseconds
from service.simulator.jobs import Jobs
from service.simulator.state import SimulatorState
from service.simulator.wire import Reply, error_reply, json_reply


class Switch(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /_simulator/faults``; see :class:`~service.simulator.faults.Fault`."""

    name: str
    on: bool = True
    org: str | None = None
    value: object = None
    page: int | None = None
    request: int | None = None
    probability: float = 1.0
    times: int | None = None
    seed: int = 0


class SetClock(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /_simulator/clock``."""

    now: datetime


class Admin:
    """The endpoints below ``/_simulator/``.

    ``GET stats`` · ``GET truth?org=&from=&to=&granularity=[&timezone=&at=&flow=…]`` · ``GET flows?org=`` ·
    ``GET measures``, as ``truth``, with ``group_by`` and ``metric``, which may be repeated · ``POST faults`` ·
    ``POST clock`` · ``POST revoke``. These requests do not count as a client's.
    """

    def __init__(self, simulator: SimulatorState, jobs: Mapping[str, Jobs]) -> None:
        self._simulator = simulator
        self._jobs = jobs

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one request: 400 if it is invalid, 404 if there is no such endpoint."""
        body = await request.read()
        try:
            reply = self._route(f"{request.method} {request.path.rpartition('/')[2]}", request, body)
        except ApiError as error:
            reply = error_reply(error)
        except (KeyError, ValueError, msgspec.MsgspecError) as error:
            reply = error_reply(bad_request(f"{type(error).__name__}: {error}"))
        return reply.response()

    def _route(self, route: str, request: web.Request, body: bytes) -> Reply:
        match route:
            case "GET stats":
                return self._stats()
            case "GET truth" | "GET measures":
                return json_reply(self._measures(request) if route == "GET measures" else self._truth(request))
            case "GET flows":
                org = self._simulator.orgs[request.query["org"]]
                return json_reply([{"id": flow.id, "name": flow.name} for flow in org.centre.flows()])
            case "POST faults":
                return self._faults(msgspec.json.decode(body, type=Switch))
            case "POST clock":
                self._simulator.set_now(msgspec.json.decode(body, type=SetClock).now)
                return json_reply({"now": format_instant(to_milliseconds(self._simulator.now()))})
            case "POST revoke":
                self._simulator.revoke_tokens()
                return json_reply({})
        raise ApiError(404, "not.found", "There is no such endpoint of the simulator")

    def _stats(self) -> Reply:
        simulator = self._simulator
        statuses: dict[str, int] = {}
        kinds: dict[str, int] = {}
        for arrival in simulator.arrivals:
            statuses[str(arrival.status)] = statuses.get(str(arrival.status), 0) + 1
            kinds[arrival.kind] = kinds.get(arrival.kind, 0) + 1
        return json_reply(
            {
                "now": format_instant(to_milliseconds(simulator.now())),
                "requests": len(simulator.arrivals),
                "kinds": kinds,
                "statuses": statuses,
                "peak_per_second": {org: simulator.peak_per_second(org) for org in simulator.orgs},
                "fired": dict(simulator.fired),
                "in_flight_violations": simulator.in_flight_violations,
                "hold_violations": simulator.hold_violations,
                "tokens_issued": simulator.tokens_issued,
                "jobs": {
                    org: {
                        "begun": jobs.begun,
                        "deleted": jobs.deleted,
                        "left": len(jobs.known),
                        "most_alike": jobs.most_alike,
                    }
                    for org, jobs in self._jobs.items()
                },
            }
        )

    def _truth(self, request: web.Request) -> list[dict[str, object]]:
        parameters: Mapping[str, str] = request.query
        figures = self._simulator.truth(
            _instant(parameters["from"]),
            _instant(parameters["to"]),
            _granularity(parameters),
            parameters.get("timezone"),
            flows=request.query.getall("flow", None),
            at=_instant(parameters["at"]) if "at" in parameters else None,
            org=parameters["org"],
        )
        return [
            {
                "flow_id": flow,
                "bucket_start": format_instant(to_milliseconds(start)),
                "outcome_name": name,
                "outcome_count": count,
                "outcome_percentage": percent,
            }
            for (flow, start, name), (count, percent) in figures.items()
        ]

    def _measures(self, request: web.Request) -> list[dict[str, object]]:
        parameters: Mapping[str, str] = request.query
        dimensions = request.query.getall("group_by", [])
        measures = self._simulator.measure(
            (_instant(parameters["from"]), _instant(parameters["to"])),
            _granularity(parameters),
            dimensions,
            request.query.getall("metric"),
            parameters.get("timezone"),
            flows=request.query.getall("flow", None),
            at=_instant(parameters["at"]) if "at" in parameters else None,
            org=parameters["org"],
        )
        return [
            {
                "group": dict(zip(dimensions, measure.group, strict=True)),
                "bucket_start": format_instant(to_milliseconds(measure.bucket_start)),
                "metric": measure.metric,
                "stats": format_stats(stats),
            }
            for measure, stats in measures.items()
        ]

    def _faults(self, switch: Switch) -> Reply:
        fault = Fault(switch.value, switch.page, switch.request, switch.probability, switch.times, switch.seed)
        self._simulator.switch(switch.name, fault if switch.on else None, org=switch.org)
        return json_reply({"name": switch.name, "on": switch.on})


def _granularity(parameters: Mapping[str, str]) -> TimeGroup:
    granularity = parameters["granularity"]
    if granularity not in ("hourly", "daily", "monthly"):
        raise bad_request("granularity must be hourly, daily or monthly")
    return cast("TimeGroup", granularity)


def _instant(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"an instant needs a UTC offset: {text!r}")
    return at
