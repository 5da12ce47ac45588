"""The names of flows and outcomes, page by page."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from service.errors import PageError
from service.genesys.dialect import ApiRequest
from service.genesys.names import FLOWS, OUTCOMES, listed


def list_of(*pages: object) -> tuple[dict[str, str], list[str]]:
    """What is listed, and the paths that were asked for."""
    waiting, asked = list(pages), []

    async def call(request: ApiRequest) -> bytes:
        assert (request.method, request.body) == ("GET", None)
        asked.append(request.path)
        page = waiting.pop(0)
        return page if isinstance(page, bytes) else json.dumps(page).encode()

    return asyncio.run(listed(OUTCOMES, call)), asked


def page(*entities: object, count: object = 1) -> dict[str, Any]:
    return {"entities": entities, "pageCount": count}


def test_every_page_is_read() -> None:
    """Up to the page count, which may change on the way."""
    names, asked = list_of(
        page({"id": "a", "name": "A"}, count=2), page(count=3), page({"id": "b", "name": "B"}, count=3)
    )
    assert names == {"a": "A", "b": "B"}
    assert asked == [f"/api/v2/flows/outcomes?pageNumber={number}&pageSize=100" for number in (1, 2, 3)]


def test_none_at_all() -> None:
    """An org without outcomes has one page without any."""
    assert list_of(page(count=0)) == ({}, ["/api/v2/flows/outcomes?pageNumber=1&pageSize=100"])


@pytest.mark.parametrize("name", ["", None, 5, "a\0b", "\ud800", "é" * 257, ["A"]])
def test_a_name_that_cannot_be_stored_is_left_out(name: object) -> None:
    """The id serves."""
    names, _ = list_of(page({"id": "a", "name": name}, {"id": "b", "name": "B"}, {"id": "c"}, 17, {"name": "D"}))
    assert names == {"b": "B"}


@pytest.mark.parametrize(
    "answer",
    [b"<html>", b"\xff", b"[]", {}, {"entities": {}}, {"entities": []}, page(count="1"), page(count=10**6)],
)
def test_a_page_at_fault(answer: object) -> None:
    """The list cannot be believed."""
    with pytest.raises(PageError):
        list_of(answer)


def test_each_list_names_its_permission() -> None:
    """For a 403."""
    assert "architect:flow:view" in FLOWS.rules.permission
    assert "architect:flowOutcome:view" in OUTCOMES.rules.permission
