"""How an org's breaker is noted for those who look from outside."""

from __future__ import annotations

import asyncio

import pytest

from service.errors import DatabaseUnavailableError
from service.telemetry import breaker_state
from service.telemetry.breaker_state import BreakerNotes


class Book:
    """Takes notes, each when it is let."""

    def __init__(self) -> None:
        self.written: list[tuple[str, float | None]] = []
        self.events: list[str] = []
        self.away = 0
        self.open = asyncio.Event()
        self.open.set()
        self.notes = BreakerNotes(self.write, lambda event, **_: self.events.append(event))

    async def write(self, state: str, open_for: float | None) -> None:
        await self.open.wait()
        if self.away:
            self.away -= 1
            raise DatabaseUnavailableError("away")
        self.written.append((state, open_for))


async def test_each_turn_is_noted() -> None:
    """Open, half-open and closed are written as they come; other events only pass."""
    book = Book()
    for event, context in (
        ("circuit_opened", {"open_for": 30.0}),
        ("circuit_half_open", {}),
        ("request_sent", {}),
        ("circuit_closed", {}),
    ):
        book.notes.emit(event, org="acme", **context)
        await book.notes.close()
    assert book.written == [("open", 30.0), ("half-open", None), ("closed", None)]
    assert book.events == ["circuit_opened", "circuit_half_open", "request_sent", "circuit_closed"]


async def test_the_last_one_wins() -> None:
    """A turn that comes while an earlier one is being written is written after it."""
    book = Book()
    book.open.clear()
    book.notes.emit("circuit_opened", open_for=30.0)
    await asyncio.sleep(0)
    book.notes.emit("circuit_half_open")
    book.notes.emit("circuit_closed")
    book.open.set()
    await book.notes.close()
    assert book.written == [("open", 30.0), ("closed", None)]


async def test_it_waits_for_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written is written when the database is back."""
    monkeypatch.setattr(breaker_state, "AWAY_RETRY", 0)
    book = Book()
    book.away = 2
    book.notes.emit("circuit_opened", open_for=30.0)
    await book.notes.close()
    assert book.written == [("open", 30.0)]
