"""``POST /oauth/token``: who asks, what may go wrong, and the token."""

from __future__ import annotations

from aiohttp import web

from service.simulator.fault_injection import before_token
from service.simulator.instants import Now
from service.simulator.oauth import TokenRefusal, Tokens, basic_credentials, check_grant
from service.simulator.organisation import LiveOrg
from service.simulator.refusal import Refusal
from service.simulator.wire import Reply, document

PATH = "/oauth/token"


async def answer_token(request: web.Request, org: LiveOrg | None, tokens: Tokens, now: Now) -> Reply:
    """A fresh access token; TokenRefusal for whoever has no right to it. ``org`` is the client id's, or None."""
    form = await request.post()
    if request.method != "POST":
        raise Refusal(405, "method.not.allowed", "HTTP 405 Method Not Allowed")
    check_grant(request.content_type, form)
    if org is None:
        raise TokenRefusal(401, "invalid_client", "client not found")
    occasion = org.faults.occasion("token")
    if struck := await before_token(org, request, occasion, now.pace):
        return struck
    credentials = basic_credentials(request.headers.get("Authorization"))
    if credentials is None or credentials.client_secret != org.settings.client_secret:
        raise TokenRefusal(401, "invalid_client", "authentication failed")
    lifetime = org.settings.token_lifetime
    told: dict[str, object] = {
        "access_token": tokens.issue(org.client_id, lifetime, now.monotonic),
        "token_type": "bearer",
        "expires_in": int(lifetime),
    }
    if fault := occasion.strike("expires_in"):
        told["expires_in"] = -1 if fault.value is None else fault.value
        if fault.value == "absent":
            del told["expires_in"]
    return document(told)
