"""How the state of an org's breaker is stored for other processes."""

from __future__ import annotations

import asyncio

import pytest

from service.errors import DatabaseUnavailableError
from service.telemetry import breaker_state
from service.telemetry.breaker_state import BreakerStateWriter


class Recorder:
    """Records what is written; ``gate`` delays a write, and ``failures`` of them fail first."""

    def __init__(self) -> None:
        self.written: list[tuple[str, float | None]] = []
        self.failures = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.writer = BreakerStateWriter(self.write)

    async def write(self, state: str, open_for: float | None) -> None:
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise DatabaseUnavailableError("unavailable")
        self.written.append((state, open_for))


async def test_each_change_is_written() -> None:
    """In order, the open time with ``open``."""
    recorder = Recorder()
    changes = [("open", 30.0), ("half-open", None), ("closed", None)]
    for state, open_for in changes:
        recorder.writer.record(state, open_for)
        await recorder.writer.close()
    assert recorder.written == changes


async def test_the_last_pending_state_is_written() -> None:
    """Of several changes during a write, only the last one follows it."""
    recorder = Recorder()
    recorder.gate.clear()
    recorder.writer.record("open", 30.0)
    await asyncio.sleep(0)
    recorder.writer.record("half-open", None)
    recorder.writer.record("closed", None)
    recorder.gate.set()
    await recorder.writer.close()
    assert recorder.written == [("open", 30.0), ("closed", None)]


async def test_it_retries_until_the_database_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state that could not be written is written later."""
    monkeypatch.setattr(breaker_state, "RETRY_DELAY", 0)
    recorder = Recorder()
    recorder.failures = 2
    recorder.writer.record("open", 30.0)
    await recorder.writer.close()
    assert recorder.written == [("open", 30.0)]
