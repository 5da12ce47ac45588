"""The divisions in which the client's role may see figures: ``GET /api/v2/authorization/divisionspermitted/me``.

The response is a list of divisions (official Python SDK 269.0.0: ``AuthzDivision``), or a page of them
(``DivsPermittedEntityListing``); both are read.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from service.errors import InvalidResponseError
from service.genesys.dialect import ApiRequest, Call
from service.genesys.error_mapping import EndpointPolicy

PATH = "/api/v2/authorization/divisionspermitted/me"
PERMISSION = "analytics:flowAggregate:view"
POLICY = EndpointPolicy("to list its divisions", None, limit_headers=True, breaker_exempt=True)
PAGE_SIZE = 100
PAGES_MAX = 20


class PermittedDivisions(NamedTuple):
    """The divisions of the client's role.

    Attributes:
        names: by id.
        are_all: whether these are all of the org's divisions; None where the API does not say.
    """

    names: dict[str, str]
    are_all: bool | None


async def permitted_divisions(call: Call) -> PermittedDivisions:
    """The divisions in which the client's role may see figures.

    Raises:
        InvalidResponseError: a response is no list of divisions, or there are more than ``PAGES_MAX`` pages.
        ExtractionError: they cannot be read.
    """
    names: dict[str, str] = {}
    are_all: bool | None = None
    for number in range(1, PAGES_MAX + 1):
        path = f"{PATH}?permission={PERMISSION}&pageNumber={number}&pageSize={PAGE_SIZE}"
        response = await call(ApiRequest("GET", path, policy=POLICY))
        entities, pages, said = _page(response.body)
        known = len(names)
        names.update(_names(entities))
        are_all = said if said is not None else are_all
        if number >= pages or len(names) == known:
            return PermittedDivisions(names, are_all)
    raise InvalidResponseError(f"the API announced more than {PAGES_MAX} pages of divisions")


def _page(body: bytes) -> tuple[list[Any], int, bool | None]:
    """The divisions of one page, the number of pages, and whether the role has all divisions."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidResponseError("the list of divisions is not JSON") from None
    if isinstance(document, list):
        return document, 1, None
    entities = document.get("entities") if isinstance(document, dict) else None
    if not isinstance(entities, list):
        raise InvalidResponseError("the list of divisions has no entities")
    pages, said = document.get("pageCount"), document.get("allDivsPermitted")
    return (
        entities,
        pages if isinstance(pages, int) and not isinstance(pages, bool) else 1,
        said if isinstance(said, bool) else None,
    )


def _names(entities: list[Any]) -> dict[str, str]:
    """Names by id; an id stands for a name that is missing."""
    ids = {each["id"]: each for each in entities if isinstance(each, dict) and isinstance(each.get("id"), str)}
    return {id_: name if isinstance(name := each.get("name"), str) else id_ for id_, each in ids.items()}
