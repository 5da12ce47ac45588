"""Faults that come before the engine: a gateway's errors, a token gone stale, an endpoint that moved."""

from __future__ import annotations

import asyncio

from aiohttp import web

from service.simulator.faults import Fault, Occasion
from service.simulator.oauth import missing_permission
from service.simulator.organisation import LiveOrg
from service.simulator.page_corruption import HTML
from service.simulator.refusal import Refusal
from service.simulator.wire import Reply, document, refused, reset

MOVED = "/api/v2/analytics/query-builder/moved"
_LONGEST_HOLD = 3600


def too_many(org: LiveOrg, at: float, told: str | None = None) -> Reply:
    """A 429, and the hold that it asks for; ``told`` is its Retry-After, None the org's own, "absent" for none."""
    told = str(org.settings.retry_after) if told is None else told
    if told.isascii() and told.isdigit():
        org.hold.tell(at, min(int(told), _LONGEST_HOLD))
    refusal = Refusal(429, "too.many.requests", "Rate limit exceeded the maximum")
    return refused(refusal, {} if told == "absent" else {"Retry-After": told})


async def before_query(
    org: LiveOrg, request: web.Request, occasion: Occasion, at: float, permission: str = "analytics:query:read"
) -> Reply | None:
    """What a fault answers in place of the engine; None where none strikes."""
    if fault := occasion.strike("slow"):
        await asyncio.sleep(float(str(fault.value or 2)))
    if occasion.strike("connection_reset"):
        reset(request)
    return _in_place_of_page(org, request, occasion, at, permission)


def _in_place_of_page(
    org: LiveOrg, request: web.Request, occasion: Occasion, at: float, permission: str
) -> Reply | None:
    if occasion.strike("redirect"):
        return Reply(307, b"", {"Location": MOVED})
    if fault := occasion.strike("throttled"):
        return too_many(org, at, _text(fault))
    if fault := occasion.strike("server_error"):
        return _server_error(int(str(fault.value or 503)))
    if occasion.strike("unauthorized"):
        raise Refusal(401, "bad.credentials", "Invalid login credentials.")
    if occasion.strike("forbidden"):
        raise missing_permission(permission)
    if fault := occasion.strike("hostile_error"):
        return _echo(request, int(str(fault.value or 400)))
    return None


async def before_token(org: LiveOrg, request: web.Request, occasion: Occasion, at: float) -> Reply | None:
    """What a fault answers in place of a token; None where none strikes."""
    if fault := occasion.strike("token_slow"):
        await asyncio.sleep(float(str(fault.value or 2)))
    if occasion.strike("token_reset"):
        reset(request)
    if fault := occasion.strike("token_throttled"):
        return too_many(org, at, _text(fault))
    if fault := occasion.strike("token_error"):
        return _server_error(int(str(fault.value or 500)))
    if occasion.strike("token_not_json"):
        return Reply(200, HTML, content_type="text/html")
    if occasion.strike("token_hostile"):
        return _echo(request, 400)
    if occasion.strike("token_missing"):
        return document({"token_type": "bearer", "expires_in": 86_400})
    return None


def _text(fault: Fault) -> str:
    return "1" if fault.value is None else str(fault.value)


def _server_error(status: int) -> Reply:
    """A 502 comes from a gateway in HTML, the others from the service in JSON."""
    if status == 502:  # noqa: PLR2004
        return Reply(502, b"<html><body><h1>502 Bad Gateway</h1></body></html>", content_type="text/html")
    codes = {500: "internal.server.error", 503: "service.unavailable", 504: "request.timeout"}
    return refused(Refusal(status, codes.get(status, "error"), "The service could not fulfil the request"))


def _echo(request: web.Request, status: int) -> Reply:
    """An error whose text repeats the Authorization header, and the secret in it."""
    header = request.headers.get("Authorization", "")
    secret = header.partition(" ")[2]
    return refused(Refusal(status, "bad.request", f"cannot process Authorization: {header} (token {secret})"))
