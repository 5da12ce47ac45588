"""The current names of an org's flows, outcomes and milestones, page by page; deleted flows are listed too.

``GET /api/v2/flows``, ``/api/v2/flows/outcomes`` and ``/api/v2/flows/milestones`` (official Python SDK 269.0.0:
``ArchitectApi``).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from service.errors import InvalidResponseError
from service.genesys import loose_json
from service.genesys.dialect import ApiRequest, Call, PagingCheck
from service.genesys.error_mapping import EndpointPolicy

PAGE_SIZE = 100
PAGES_MAX = 10_000
NAME_BYTES_MAX = 512


class NameList(NamedTuple):
    """An endpoint that lists names: its path, how its responses are read, what it needs, its own parameters."""

    path: str
    policy: EndpointPolicy
    permission: str
    parameters: str = ""


class Listed(NamedTuple):
    """A flow, an outcome or a milestone as the API lists it.

    Attributes:
        name: its current name.
        kind: its type; None where that is absent or cannot be stored. So for the division's id and name.
        deleted: whether it is marked as deleted.
    """

    name: str
    kind: str | None = None
    division_id: str | None = None
    division_name: str | None = None
    deleted: bool = False


FLOW_NAMES = NameList(
    "/api/v2/flows",
    EndpointPolicy(
        "Architect > Flow > View (architect:flow:view)",
        None,
        limit_headers=True,
        breaker_exempt=True,
    ),
    "architect:flow:view",
    "&deleted=true",
)
OUTCOME_NAMES = NameList(
    "/api/v2/flows/outcomes",
    EndpointPolicy(
        "Architect > Flow Outcome > View (architect:flowOutcome:view)",
        None,
        limit_headers=True,
        breaker_exempt=True,
    ),
    "architect:flowOutcome:view",
)
MILESTONE_NAMES = NameList(
    "/api/v2/flows/milestones",
    EndpointPolicy(
        "Architect > Flow Milestone > View (architect:flowMilestone:view)",
        None,
        limit_headers=True,
        breaker_exempt=True,
    ),
    "architect:flowMilestone:view",
)


async def count_names(names: NameList, call: Call) -> int:
    """How many entities the first page of a list has.

    Raises:
        ExtractionError: the list cannot be read.
    """
    path = f"{names.path}?pageNumber=1&pageSize={PAGE_SIZE}{names.parameters}"
    return len(_page((await call(ApiRequest("GET", path, policy=names.policy))).body)[0])


async def list_names(names: NameList, call: Call, pages_max: int | None = None) -> dict[str, Listed]:
    """What is listed, by id, on the first ``pages_max`` pages; an entity whose name cannot be stored is left out.

    Raises:
        ExtractionError: the list could not be read to its end.
    """
    by_id: dict[str, Listed] = {}
    paging = PagingCheck()
    number = pages = 1
    while number <= pages and (pages_max is None or number <= pages_max):
        path = f"{names.path}?pageNumber={number}&pageSize={PAGE_SIZE}{names.parameters}"
        response = await call(ApiRequest("GET", path, policy=names.policy))
        entities, pages = _page(response.body)
        if number < pages:
            paging.add(response.body, None, empty=not entities)
        for entity in entities:
            if isinstance(entity, dict) and _is_storable(entity.get("id")) and _is_storable(entity.get("name")):
                by_id[entity["id"]] = _listed(entity)
        number += 1
    return by_id


def _listed(entity: dict[str, Any]) -> Listed:
    division = entity.get("division")
    division = division if isinstance(division, dict) else {}
    return Listed(
        entity["name"],
        _text(entity.get("type")),
        _text(division.get("id")),
        _text(division.get("name")),
        entity.get("deleted") is True,
    )


def _text(value: object) -> str | None:
    return str(value) if _is_storable(value) else None


def _page(body: bytes) -> tuple[list[object], int]:
    """The entities of one page, and the number of pages."""
    page = loose_json.parse(loose_json.decode_utf8(body, "list of names"))
    entities = page.get("entities") if isinstance(page, dict) else None
    pages = page.get("pageCount") if isinstance(page, dict) else None
    if not isinstance(entities, list):
        raise InvalidResponseError("list of names has no entities")
    if not isinstance(pages, int) or isinstance(pages, bool) or not 0 <= pages <= PAGES_MAX:
        raise InvalidResponseError("list of names has no valid pageCount")
    return entities, pages


def _is_storable(text: object) -> bool:
    if not isinstance(text, str) or not text or "\0" in text:
        return False
    try:
        return len(text.encode()) <= NAME_BYTES_MAX
    except UnicodeEncodeError:
        return False
