"""The daemon's exports: one every ``export.every``, by whichever process gets to it first."""

from __future__ import annotations

import asyncio
import contextlib

from service.config import Export
from service.errors import DatabaseUnavailableError, ExportBusyError, FlowOutcomesError
from service.export import Exported, run_worker
from service.postgres.export import ExportState, read_state
from service.postgres.pool import Database
from service.telemetry import Emit, Event

RETRY_AFTER = 300.0  # seconds after a failure, where ``every`` is longer
_LOOK_AGAIN_AFTER = 30.0  # seconds at most: another process may have exported, or stopped doing so
_BUSY_FOR = 5.0  # seconds until the state is read again, where another process exports
_MONTHS_REPORTED = 20


class ExportLoop:
    """Runs an export when one is due, in a process of its own.

    Args:
        config: the section ``export``.
        database: the pool, for the state of the last export.
        emit: receives ``export_finished`` and ``export_failed``.
    """

    def __init__(self, config: Export | None, database: Database, emit: Emit) -> None:
        self._config = config
        self._database = database
        self._emit = emit
        self._changed = asyncio.Event()
        self._closed = False

    def configure(self, config: Export | None) -> None:
        """Apply a reloaded configuration."""
        if config != self._config:
            self._config = config
            self._changed.set()

    def close(self) -> None:
        """Start no further export."""
        self._closed = True
        self._changed.set()

    async def run(self) -> None:
        """Export until closed; a cancelled wait kills an export in flight, which readers do not notice."""
        while not self._closed:
            wait = await self._time_to_wait()
            if wait > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), wait)
                self._changed.clear()
            elif self._config is not None:
                await self._export(self._config)

    async def _time_to_wait(self) -> float:
        """Seconds until the next export, or until the state is to be read again; zero or less: now."""
        config = self._config
        if config is None or config.every is None:
            return _LOOK_AGAIN_AFTER
        try:
            async with self._database.connection() as connection:
                state = await read_state(connection)
        except DatabaseUnavailableError:
            return _LOOK_AGAIN_AFTER
        except Exception:  # noqa: BLE001 - an unexpected error must not end the exports
            self._emit(Event.UNEXPECTED_ERROR, org=None, job=None, exc_info=True)
            return _LOOK_AGAIN_AFTER
        return min(_LOOK_AGAIN_AFTER, due_in(state, config.target, config.every.total_seconds()))

    async def _export(self, config: Export) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            done = await run_worker(self._database.dsn, config)
        except ExportBusyError:
            await asyncio.sleep(_BUSY_FOR)
        except (FlowOutcomesError, OSError) as error:
            self._emit(Event.EXPORT_FAILED, warehouse=config.warehouse, reason=str(error))
            await self._pause(config)
        except Exception:  # noqa: BLE001 - an unexpected error must not end the daemon
            self._emit(Event.UNEXPECTED_ERROR, org=None, job=None, exc_info=True)
            await self._pause(config)
        else:
            self._emit(Event.EXPORT_FINISHED, warehouse=config.warehouse, **_summary(done, loop.time() - started))

    async def _pause(self, config: Export) -> None:
        """Wait before the next attempt; the failure may not be in the state, as where the database failed."""
        every = config.every.total_seconds() if config.every is not None else RETRY_AFTER
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), min(every, RETRY_AFTER))
        self._changed.clear()


def due_in(state: ExportState, target: str, every: float) -> float:
    """Seconds until the next export is due; zero or less: it is due.

    Args:
        state: the last export.
        target: the configured warehouse and namespace; another one than the last is due at once.
        every: seconds from an export's snapshot to the next export.
    """
    if state.failed_ago is not None:
        return min(every, RETRY_AFTER) - state.failed_ago
    if state.exported_ago is None or state.target != target:
        return 0.0
    return every - state.exported_ago


def _summary(done: Exported, seconds: float) -> dict[str, object]:
    summary: dict[str, object] = {
        "export": done.number,
        "taken_at": done.taken_at.isoformat(),
        "months": done.files,
        "rows": done.rows,
        "seconds": round(seconds, 1),
        "expired_snapshots": done.expired,
        "removed_files": done.removed,
    }
    rewritten = {name: table.reason for name, table in done.tables.items() if table.reason}
    for name, months in (("left_alone", done.left_alone), ("missing", done.missing)):
        if months:
            summary[name] = months[:_MONTHS_REPORTED]
    return summary | ({"rewritten": rewritten} if rewritten else {})
