"""``POST /oauth/token``: checks the credentials and issues a token."""

from __future__ import annotations

from aiohttp import web

from service.simulator.api_error import ApiError
from service.simulator.fault_injection import inject_token_fault
from service.simulator.instants import Now
from service.simulator.oauth import TokenError, Tokens, basic_credentials, check_grant
from service.simulator.organisation import LiveOrg
from service.simulator.wire import Reply, json_reply

PATH = "/oauth/token"


async def answer_token(request: web.Request, org: LiveOrg | None, tokens: Tokens, now: Now) -> Reply:
    """Issue an access token.

    Args:
        request: the request.
        org: the org of the request's client id; None if it is unknown.
        tokens: the issued tokens.
        now: the current time.

    Raises:
        TokenError: the credentials or the grant are invalid.
    """
    form = await request.post()
    if request.method != "POST":
        raise ApiError(405, "method.not.allowed", "HTTP 405 Method Not Allowed")
    check_grant(request.content_type, form)
    if org is None:
        raise TokenError(401, "invalid_client", "client not found")
    faults = org.fault_plan.for_request("token")
    if reply := await inject_token_fault(org, request, faults, now.pace):
        return reply
    credentials = basic_credentials(request.headers.get("Authorization"))
    if credentials is None or credentials.client_secret != org.settings.client_secret:
        raise TokenError(401, "invalid_client", "authentication failed")
    lifetime = org.settings.token_lifetime
    body: dict[str, object] = {
        "access_token": tokens.issue(org.client_id, lifetime, now.monotonic),
        "token_type": "bearer",
        "expires_in": int(lifetime),
    }
    if fault := faults.fire("expires_in"):
        body["expires_in"] = -1 if fault.value is None else fault.value
        if fault.value == "absent":
            del body["expires_in"]
    return json_reply(body)
