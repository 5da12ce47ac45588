"""Faults that replace a response: gateway errors, invalid tokens, redirects, broken connections."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from aiohttp import web

from service.simulator.api_error import ApiError
from service.simulator.faults import Fault, RequestFaults
from service.simulator.oauth import missing_permission
from service.simulator.organisation import LiveOrg
from service.simulator.page_corruption import HTML
from service.simulator.wire import REUSED, Reply, error_reply, json_reply, reset_connection

MOVED = "/api/v2/analytics/query-builder/moved"
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
    org: LiveOrg, request: web.Request, faults: RequestFaults, at: float, permission: str = "analytics:query:read"
) -> Reply | None:
    """Return the response of the fault that fires for a query, or None."""
    if fault := faults.fire("slow"):
        await asyncio.sleep(float(str(fault.value or 2)))
    if faults.fire("connection_reset"):
        reset_connection(request)
    if request.method == "POST" and request.get(REUSED) and faults.fire("idle_reset"):
        reset_connection(request)
    return _error_instead_of_page(org, request, faults, at, permission)


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
