"""An org's divisions and its retention.

``GET /api/v2/authorization/divisionspermitted/me`` and ``GET /api/v2/analytics/dataretention/settings``. The SDK's
models are ``AuthzDivision`` and ``AnalyticsDataRetentionResponse``. The divisions are a list, as in the SDK;
they come in pages, as its ``DivsPermittedEntityListing``, below ``paged`` and where the request has a page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.simulator.api_error import ApiError, bad_request
from service.simulator.oauth import missing_permission
from service.simulator.organisation import HOME, LiveOrg, division_id
from service.simulator.wire import Reply, json_reply

DIVISIONS = "/api/v2/authorization/divisionspermitted/me"
DIVISIONS_PAGED = "/api/v2/authorization/divisionspermitted/paged/me"
RETENTION = "/api/v2/analytics/dataretention/settings"
_VIEW_RETENTION = "analytics:dataRetention:view"
_MAX_PAGE_SIZE = 100


def division(name: str) -> dict[str, object]:
    """Return a division by its name."""
    number = division_id(name)
    return {"id": number, "name": name, "selfUri": f"/api/v2/authorization/divisions/{number}"}


def answer_settings(org: LiveOrg, path: str, parameters: Mapping[str, str]) -> Reply:
    """Return the retention or a page of the divisions; raises ApiError for invalid parameters."""
    if path == RETENTION:
        return _retention(org)
    return _divisions(org, parameters, paged=path == DIVISIONS_PAGED or "pageNumber" in parameters)


def _retention(org: LiveOrg) -> Reply:
    if not org.settings.retention_permitted:
        raise missing_permission(_VIEW_RETENTION)
    if org.settings.retention_days is None:
        raise ApiError(404, "not.found", "The requested resource was not found")
    return json_reply({"retentionDays": org.settings.retention_days})


def _divisions(org: LiveOrg, parameters: Mapping[str, str], *, paged: bool) -> Reply:
    if not parameters.get("permission"):
        raise bad_request("permission must not be null", "constraint.validation")
    if unknown := parameters.keys() - {"permission", "name", "pageNumber", "pageSize"}:
        raise bad_request(f"unknown parameters: {', '.join(sorted(unknown))}")
    permitted: Sequence[str] = sorted(org.permitted_divisions)
    number, size = (
        _positive(parameters, "pageNumber", 1, 10**6),
        _positive(parameters, "pageSize", 25, _MAX_PAGE_SIZE),
    )
    entities = [{**division(name), "homeDivision": name == HOME} for name in permitted]
    if not paged:
        return json_reply(entities)
    return json_reply(
        {
            "entities": entities[(number - 1) * size : number * size],
            "pageSize": size,
            "pageNumber": number,
            "total": len(entities),
            "pageCount": -(-len(entities) // size),
            "allDivsPermitted": org.settings.permitted_divisions is None,
        }
    )


def _positive(parameters: Mapping[str, str], name: str, default: int, maximum: int) -> int:
    text = parameters.get(name, str(default))
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= maximum:
        raise bad_request(f"{name} must be a whole number from 1 to {maximum}", "constraint.validation")
    return int(text)
