"""Names of flows and outcomes: ``GET /api/v2/flows`` and ``GET /api/v2/flows/outcomes``, page by page."""

from __future__ import annotations

from collections.abc import Mapping

from service.simulator.api_error import bad_request
from service.simulator.instants import Now
from service.simulator.organisation import LiveOrg
from service.simulator.wire import Reply, json_reply

FLOWS, OUTCOMES = "/api/v2/flows", "/api/v2/flows/outcomes"
_ALLOWED = frozenset({"pageNumber", "pageSize"})
_MAX_PAGE_SIZE = 100
_HOME = {
    "id": "00000000-0000-4000-8000-000000000001",
    "name": "Home",
    "selfUri": "/api/v2/authorization/divisions",
}


def answer_names(org: LiveOrg, path: str, parameters: Mapping[str, str], now: Now) -> Reply:
    """Return a page of flows or outcomes; raises ApiError for invalid parameters."""
    if unknown := parameters.keys() - _ALLOWED:
        raise bad_request(f"unknown parameters: {', '.join(sorted(unknown))}")
    number = _positive(parameters, "pageNumber", 1, 10**6)
    size = _positive(parameters, "pageSize", 25, _MAX_PAGE_SIZE)
    names = org.centre.flows() if path == FLOWS else org.centre.outcomes(now.at)
    entities = [
        {"id": each.id, "name": each.name, "division": _HOME, "selfUri": f"{path}/{each.id}"}
        for each in sorted(names)
    ]
    return json_reply(
        {
            "entities": entities[(number - 1) * size : number * size],
            "pageSize": size,
            "pageNumber": number,
            "total": len(entities),
            "pageCount": -(-len(entities) // size),
        }
    )


def _positive(parameters: Mapping[str, str], name: str, default: int, maximum: int) -> int:
    text = parameters.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= maximum:
        raise bad_request(f"{name} must be a whole number from 1 to {maximum}", "constraint.validation")
    return int(text)
