"""The current names of an org's flows and outcomes, page by page.

``GET /api/v2/flows`` and ``GET /api/v2/flows/outcomes`` (official Python SDK 269.0.0: ``ArchitectApi``).
"""

from __future__ import annotations

from typing import NamedTuple

from service.errors import InvalidResponseError
from service.genesys import loose_json
from service.genesys.dialect import ApiRequest, Call, PagingCheck
from service.genesys.error_mapping import EndpointPolicy

PAGE_SIZE = 100
PAGES_MAX = 10_000
NAME_BYTES_MAX = 512


class NameList(NamedTuple):
    """An endpoint that lists names: its path, and how its responses are read."""

    path: str
    policy: EndpointPolicy


FLOW_NAMES = NameList(
    "/api/v2/flows",
    EndpointPolicy(
        "Architect > Flow > View (architect:flow:view)",
        "architect:readonly",
        limit_headers=True,
        breaker_exempt=True,
    ),
)
OUTCOME_NAMES = NameList(
    "/api/v2/flows/outcomes",
    EndpointPolicy(
        "Architect > Flow Outcome > View (architect:flowOutcome:view)",
        "architect:readonly",
        limit_headers=True,
        breaker_exempt=True,
    ),
)


async def list_names(names: NameList, call: Call) -> dict[str, str]:
    """Names by id; an entity whose name cannot be stored is left out.

    Raises:
        ExtractionError: the list could not be read to its end.
    """
    by_id: dict[str, str] = {}
    paging = PagingCheck()
    number = pages = 1
    while number <= pages:
        path = f"{names.path}?pageNumber={number}&pageSize={PAGE_SIZE}"
        response = await call(ApiRequest("GET", path, policy=names.policy))
        entities, pages = _page(response.body)
        if number < pages:
            paging.add(response.body, None, empty=not entities)
        for entity in entities:
            if isinstance(entity, dict) and _is_storable(entity.get("id")) and _is_storable(entity.get("name")):
                by_id[entity["id"]] = entity["name"]
        number += 1
    return by_id


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
