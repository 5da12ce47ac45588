"""The names: ``GET /api/v2/flows`` and ``GET /api/v2/flows/outcomes``, page by page."""

from __future__ import annotations

from collections.abc import Mapping

from service.simulator.instants import Now
from service.simulator.organisation import LiveOrg
from service.simulator.refusal import bad_request
from service.simulator.wire import Reply, document

FLOWS, OUTCOMES = "/api/v2/flows", "/api/v2/flows/outcomes"
_ALLOWED = frozenset({"pageNumber", "pageSize"})
_MAX_PAGE_SIZE = 100
_HOME = {
    "id": "00000000-0000-4000-8000-000000000001",
    "name": "Home",
    "selfUri": "/api/v2/authorization/divisions",
}


def answer_names(org: LiveOrg, path: str, asked: Mapping[str, str], now: Now) -> Reply:
    """A page of flows or of outcomes; Refusal where it is asked for wrongly."""
    if unknown := asked.keys() - _ALLOWED:
        raise bad_request(f"unknown parameters: {', '.join(sorted(unknown))}")
    number, size = _whole(asked, "pageNumber", 1, 10**6), _whole(asked, "pageSize", 25, _MAX_PAGE_SIZE)
    named = org.centre.flows() if path == FLOWS else org.centre.outcomes(now.at)
    entities = [
        {"id": each.id, "name": each.name, "division": _HOME, "selfUri": f"{path}/{each.id}"}
        for each in sorted(named)
    ]
    return document(
        {
            "entities": entities[(number - 1) * size : number * size],
            "pageSize": size,
            "pageNumber": number,
            "total": len(entities),
            "pageCount": -(-len(entities) // size),
        }
    )


def _whole(asked: Mapping[str, str], name: str, usual: int, most: int) -> int:
    text = asked.get(name)
    if text is None:
        return usual
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= most:
        raise bad_request(f"{name} must be a whole number from 1 to {most}", "constraint.validation")
    return int(text)
