"""Faults that replace a response: gateway errors, invalid tokens, redirects, broken connections."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web

from service.simulator.api_error import ApiError
from service.simulator.faults import Fault, RequestFaults
from service.simulator.instants import HOUR, parse_instant
from service.simulator.oauth import missing_permission
from service.simulator.organisation import LiveOrg
from service.simulator.page_corruption import HTML
from service.simulator.wire import REUSED, Reply, error_reply, json_reply, reset_connection

MOVED = "/api/v2/analytics/query-builder/moved"
REFUSAL = ("tenant.quota", "Your plan does not include this much history per call")
"""Code and message of a refusal in words that no client foresees."""
_NO_RESPONSE = 600
"""Seconds for which a gateway keeps a connection open without a response; no client waits as long."""
_MAX_RETRY_AFTER = 3600


def too_many_requests(org: LiveOrg, at: float, retry_after: str | None = None) -> Reply:
    """Build a 429 and start the watch on its Retry-After.

    Args:
        org: the org.
        at: the current time, in seconds of the pacing clock.
        retry_after: the header's value; None for the org's own, "absent" for no header.
    """
    retry_after = str(org.settings.retry_after) if retry_after is None else retry_after
    if retry_after.isascii() and retry_after.isdigit():
        org.retry_after_watch.start(at, min(int(retry_after), _MAX_RETRY_AFTER))
    error = ApiError(429, "too.many.requests", "Rate limit exceeded the maximum")
    return error_reply(error, {} if retry_after == "absent" else {"Retry-After": retry_after})


async def inject_query_fault(
    org: LiveOrg,
    request: web.Request,
    faults: RequestFaults,
    at: float,
    permission: str = "analytics:query:read",
    *,
    document: object,
) -> Reply | None:
    """Return the response of the fault that fires for a query, or None; ``document`` is its JSON."""
    if fault := faults.fire("slow"):
        await asyncio.sleep(float(str(fault.value or 2)))
    if faults.fire("connection_reset"):
        reset_connection(request)
    if request.method == "POST" and request.get(REUSED) and faults.fire("idle_reset"):
        reset_connection(request)
    if reply := await _exceed_span(request, faults, document):
        return reply
    return _error_instead_of_page(org, request, faults, at, permission)


def refuse_results(faults: RequestFaults, results: int) -> None:
    """Raise ApiError in the words of the fault if it limits a response to fewer results."""
    fault = faults.due("result_limit")
    limit = _mapping(fault)
    if fault and results > int(str(limit.get("over", 1))):
        faults.count("result_limit")
        raise ApiError(
            int(str(limit.get("status", 400))),
            str(limit.get("code", REFUSAL[0])),
            str(limit.get("message", REFUSAL[1])),
        )


async def _exceed_span(request: web.Request, faults: RequestFaults, document: object) -> Reply | None:
    """Return what a gateway that limits the span of a query answers, or None."""
    fault = faults.due("span_limit")
    limit = _mapping(fault)
    if fault is None or _span(document) <= float(str(limit.get("hours", 24))) * HOUR:
        return None
    faults.count("span_limit")
    status = limit.get("status", 504)
    if status == "reset":
        reset_connection(request)
    if status == "none":
        await asyncio.sleep(_NO_RESPONSE)
    number = int(str(504 if status == "none" else status))
    if number not in (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.GATEWAY_TIMEOUT) or "code" in limit:
        raise ApiError(number, str(limit.get("code", REFUSAL[0])), str(limit.get("message", REFUSAL[1])))
    title = f"{number} {HTTPStatus(number).phrase}"
    body = f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
    return Reply(number, body.encode(), content_type="text/html")


def _mapping(fault: Fault | None) -> Mapping[str, object]:
    return fault.value if fault is not None and isinstance(fault.value, Mapping) else {}


def _span(document: object) -> int:
    """Return the length of a query's span in milliseconds; 0 if it is not valid."""
    try:
        if "interval" in document:  # type: ignore[operator]
            start, end = document["interval"].split("/")  # type: ignore[index]
        else:
            builder = document["queryBuilder"]  # type: ignore[index]
            start, end = builder["dateFrom"], builder["dateTo"]
        return parse_instant(end) - parse_instant(start)
    except (TypeError, KeyError, ValueError, AttributeError):
        return 0


def _error_instead_of_page(
    org: LiveOrg, request: web.Request, faults: RequestFaults, at: float, permission: str
) -> Reply | None:
    if faults.fire("redirect"):
        return Reply(307, b"", {"Location": MOVED})
    if fault := faults.fire("throttled"):
        return too_many_requests(org, at, _text(fault))
    if fault := faults.fire("server_error"):
        return _server_error(int(str(fault.value or 503)))
    if faults.fire("unauthorized"):
        raise ApiError(401, "bad.credentials", "Invalid login credentials.")
    if faults.fire("forbidden"):
        raise missing_permission(permission)
    if fault := faults.fire("hostile_error"):
        return _echo(request, int(str(fault.value or 400)))
    return None


async def inject_token_fault(org: LiveOrg, request: web.Request, faults: RequestFaults, at: float) -> Reply | None:
    """Return the response of the fault that fires for a token request, or None."""
    if fault := faults.fire("token_slow"):
        await asyncio.sleep(float(str(fault.value or 2)))
    if faults.fire("token_reset"):
        reset_connection(request)
    if fault := faults.fire("token_throttled"):
        return too_many_requests(org, at, _text(fault))
    if fault := faults.fire("token_error"):
        return _server_error(int(str(fault.value or 500)))
    if faults.fire("token_not_json"):
        return Reply(200, HTML, content_type="text/html")
    if faults.fire("token_hostile"):
        return _echo(request, 400)
    if faults.fire("token_missing"):
        return json_reply({"token_type": "bearer", "expires_in": 86_400})
    return None


def _text(fault: Fault) -> str:
    return "1" if fault.value is None else str(fault.value)


def _server_error(status: int) -> Reply:
    """A 502 comes from the gateway as HTML, the others from the service as JSON."""
    if status == HTTPStatus.BAD_GATEWAY:
        return Reply(502, b"<html><body><h1>502 Bad Gateway</h1></body></html>", content_type="text/html")
    codes = {500: "internal.server.error", 503: "service.unavailable", 504: "request.timeout"}
    return error_reply(ApiError(status, codes.get(status, "error"), "The service could not fulfil the request"))


def _echo(request: web.Request, status: int) -> Reply:
    """Build an error whose text repeats the Authorization header and the secret in it."""
    header = request.headers.get("Authorization", "")
    secret = header.partition(" ")[2]
    return error_reply(ApiError(status, "bad.request", f"cannot process Authorization: {header} (token {secret})"))
