"""The present names of an org's flows and outcomes: ``GET /api/v2/flows`` and ``/flows/outcomes``, paged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from service.errors import PageError
from service.genesys import loose_json
from service.genesys.dialect import ApiRequest
from service.genesys.error_mapping import EndpointPolicy

PAGE_SIZE = 100
PAGES_MAX = 10_000
NAME_BYTES_MAX = 512

Call = Callable[[ApiRequest], Awaitable[bytes]]


class Listing(NamedTuple):
    """A list of names: its path, and what its answers mean."""

    path: str
    rules: EndpointPolicy


FLOWS = Listing(
    "/api/v2/flows",
    EndpointPolicy(
        "Architect > Flow > View (architect:flow:view)",
        "architect:readonly",
        tells_limit=True,
        aside=True,
    ),
)
OUTCOMES = Listing(
    "/api/v2/flows/outcomes",
    EndpointPolicy(
        "Architect > Flow Outcome > View (architect:flowOutcome:view)",
        "architect:readonly",
        tells_limit=True,
        aside=True,
    ),
)


async def listed(listing: Listing, call: Call) -> dict[str, str]:
    """Names by id. What has no name that can be stored is left out: its id serves.

    Raises:
        ExtractionError: the list could not be read to its end.
    """
    found: dict[str, str] = {}
    number = pages = 1
    while number <= pages:
        path = f"{listing.path}?pageNumber={number}&pageSize={PAGE_SIZE}"
        entities, pages = _page(await call(ApiRequest("GET", path, rules=listing.rules)))
        for entity in entities:
            if isinstance(entity, dict) and _sound(entity.get("id")) and _sound(entity.get("name")):
                found[entity["id"]] = entity["name"]
        number += 1
    return found


def _page(answer: bytes) -> tuple[list[object], int]:
    """The entities of one page, and how many pages there are."""
    try:
        text = answer.decode()
    except UnicodeDecodeError as error:
        raise PageError(f"the list of names is not valid UTF-8 at byte {error.start}") from None
    page = loose_json.parse(text)
    entities = page.get("entities") if isinstance(page, dict) else None
    pages = page.get("pageCount") if isinstance(page, dict) else None
    if not isinstance(entities, list):
        raise PageError("the list of names has no entities")
    if not isinstance(pages, int) or isinstance(pages, bool) or not 0 <= pages <= PAGES_MAX:
        raise PageError("the list of names has no pageCount that can be believed")
    return entities, pages


def _sound(text: object) -> bool:
    if not isinstance(text, str) or not text or "\0" in text:
        return False
    try:
        return len(text.encode()) <= NAME_BYTES_MAX
    except UnicodeEncodeError:
        return False
