"""Names, page by page: ``GET /api/v2/flows``, ``/api/v2/flows/outcomes`` and ``/api/v2/flows/milestones``."""

from __future__ import annotations

from collections.abc import Mapping

from service.simulator.api_error import bad_request
from service.simulator.centre import Flow
from service.simulator.instants import Now
from service.simulator.org_settings import division
from service.simulator.organisation import HOME, LiveOrg
from service.simulator.record_traits import flow_traits
from service.simulator.wire import Reply, json_reply

FLOWS, OUTCOMES, MILESTONES = "/api/v2/flows", "/api/v2/flows/outcomes", "/api/v2/flows/milestones"
_ALLOWED = frozenset({"pageNumber", "pageSize"})
_MAX_PAGE_SIZE = 100
_HOME = division(HOME)


def answer_names(org: LiveOrg, path: str, parameters: Mapping[str, str], now: Now) -> Reply:
    """Return a page of flows, outcomes or milestones; raises ApiError for invalid parameters."""
    allowed = _ALLOWED | {"deleted"} if path == FLOWS else _ALLOWED
    if unknown := parameters.keys() - allowed:
        raise bad_request(f"unknown parameters: {', '.join(sorted(unknown))}")
    number = _positive(parameters, "pageNumber", 1, 10**6)
    size = _positive(parameters, "pageSize", 25, _MAX_PAGE_SIZE)
    if path == FLOWS:
        entities = _flows(org, with_deleted=_boolean(parameters, "deleted"))
    else:
        named = org.centre.outcomes(now.at) if path == OUTCOMES else org.milestones
        entities = [_entity(path, each) for each in sorted(named)]
    return json_reply(
        {
            "entities": entities[(number - 1) * size : number * size],
            "pageSize": size,
            "pageNumber": number,
            "total": len(entities),
            "pageCount": -(-len(entities) // size),
        }
    )


def _flows(org: LiveOrg, *, with_deleted: bool) -> list[dict[str, object]]:
    flows = org.centre.flows()
    kept = len(flows) - org.settings.deleted_flows
    return [
        {
            **_entity(FLOWS, flow),
            "division": division(org.division_of(flow.id)),
            "type": flow_traits(flow.id).flow_type,
            "deleted": place >= kept,
        }
        for place, flow in sorted(enumerate(flows), key=lambda each: each[1])
        if with_deleted or place < kept
    ]


def _entity(path: str, named: Flow) -> dict[str, object]:
    return {"id": named.id, "name": named.name, "division": _HOME, "selfUri": f"{path}/{named.id}"}


def _boolean(parameters: Mapping[str, str], name: str) -> bool:
    text = parameters.get(name, "false")
    if text not in ("true", "false"):
        raise bad_request(f"{name} must be true or false", "constraint.validation")
    return text == "true"


def _positive(parameters: Mapping[str, str], name: str, default: int, maximum: int) -> int:
    text = parameters.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= maximum:
        raise bad_request(f"{name} must be a whole number from 1 to {maximum}", "constraint.validation")
    return int(text)
