"""The lists of flow and outcome names."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from service.errors import InvalidResponseError
from service.genesys.dialect import ApiRequest, Response
from service.genesys.names import FLOW_NAMES, OUTCOME_NAMES, list_names


def list_of(*pages: object) -> tuple[dict[str, str], list[str]]:
    """The names, and the requested paths."""
    waiting, requested = list(pages), []

    async def call(request: ApiRequest) -> Response:
        assert (request.method, request.body) == ("GET", None)
        requested.append(request.path)
        page = waiting.pop(0)
        return Response(page if isinstance(page, bytes) else json.dumps(page).encode())

    listed = asyncio.run(list_names(OUTCOME_NAMES, call))
    return {each: one.name for each, one in listed.items()}, requested


def page(*entities: object, count: object = 1) -> dict[str, Any]:
    return {"entities": entities, "pageCount": count}


def test_every_page_is_read() -> None:
    """Up to the page count, which may change between pages."""
    names, requested = list_of(
        page({"id": "a", "name": "A"}, count=2), page(count=3), page({"id": "b", "name": "B"}, count=3)
    )
    assert names == {"a": "A", "b": "B"}
    assert requested == [f"/api/v2/flows/outcomes?pageNumber={number}&pageSize=100" for number in (1, 2, 3)]


def test_flows_are_listed_with_the_deleted_ones() -> None:
    """With type and division; what cannot be stored is absent, and anything but true is not deleted."""
    home = {"id": "d", "name": "Home"}
    entities = [
        {"id": "a", "name": "A", "type": "INBOUNDCALL", "division": home, "deleted": True},
        {"id": "b", "name": "B", "type": 5, "division": "Home", "deleted": "true"},
        {"id": "c", "name": "C", "type": "", "division": {"id": None, "name": "x\0"}},
    ]

    async def call(request: ApiRequest) -> Response:
        assert request.path == "/api/v2/flows?pageNumber=1&pageSize=100&deleted=true"
        return Response(json.dumps(page(*entities)).encode())

    assert asyncio.run(list_names(FLOW_NAMES, call)) == {
        "a": ("A", "INBOUNDCALL", "d", "Home", True),
        "b": ("B", None, None, None, False),
        "c": ("C", None, None, None, False),
    }


def test_an_empty_list() -> None:
    """An org without outcomes has one empty page."""
    assert list_of(page(count=0)) == ({}, ["/api/v2/flows/outcomes?pageNumber=1&pageSize=100"])


@pytest.mark.parametrize("name", ["", None, 5, "a\0b", "\ud800", "é" * 257, ["A"]])
def test_a_name_that_cannot_be_stored_is_left_out(name: object) -> None:
    """The id is used instead."""
    names, _ = list_of(page({"id": "a", "name": name}, {"id": "b", "name": "B"}, {"id": "c"}, 17, {"name": "D"}))
    assert names == {"b": "B"}


@pytest.mark.parametrize(
    "answer",
    [b"<html>", b"\xff", b"[]", {}, {"entities": {}}, {"entities": []}, page(count="1"), page(count=10**6)],
)
def test_an_invalid_page(answer: object) -> None:
    """Nothing of the list is used."""
    with pytest.raises(InvalidResponseError):
        list_of(answer)


def test_each_list_names_its_permission() -> None:
    """A 403 reports it."""
    assert "architect:flow:view" in FLOW_NAMES.policy.permission
    assert "architect:flowOutcome:view" in OUTCOME_NAMES.policy.permission


def test_a_list_without_an_end() -> None:
    """A page count that grows with every page ends after a hundred empty or repeated pages."""
    with pytest.raises(InvalidResponseError, match="100 pages in a row"):
        list_of(*(page(count=number + 1) for number in range(1, 102)))
    with pytest.raises(InvalidResponseError, match="100 pages in a row"):
        list_of(*[page({"id": "a", "name": "A"}, count=9999)] * 102)
