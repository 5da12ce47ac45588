"""An export in a process of its own that kills itself at a step."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from functools import wraps
from multiprocessing.connection import Connection
from typing import Any

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import PyArrowFile

from service.config import Export
from service.export.exporter import export
from service.postgres.export import ExportLease

TIMEOUT = 60.0
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__, "service.export.catalog", "service.export.maintenance"])


def run_export(dsn: str, config: Export, kill_at: int) -> tuple[int | None, list[str]]:
    """Export, and kill the process at a step, counted from 0; -1 never.

    Returns:
        The exit code, and the steps that were reached.
    """
    ours, theirs = _processes.Pipe(duplex=False)
    order = dsn, config.warehouse, config.keep_snapshots, kill_at, theirs
    process = _processes.Process(target=_run, args=order)
    process.start()
    theirs.close()
    steps: list[str] = []
    try:
        while ours.poll(TIMEOUT):
            steps.append(ours.recv())
    except EOFError:
        pass
    process.join(TIMEOUT)
    code = process.exitcode
    if code is None:
        process.kill()
    process.close()
    ours.close()
    return code, steps


def _run(dsn: str, warehouse: str, keep: Any, kill_at: int, steps: Connection) -> None:  # noqa: ANN401 - a timedelta
    reached, turn = 0, threading.Lock()

    def step(name: str) -> None:
        nonlocal reached
        with turn:  # pyiceberg writes manifests in threads
            steps.send(name)
            if reached == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            reached += 1

    def around(owner: type, name: str, what: Callable[[Any], str]) -> None:
        original = getattr(owner, name)

        @wraps(original)
        def hooked(self: Any, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - passed on
            step(f"before {what(self)}")
            result = original(self, *arguments, **named)
            step(f"after {what(self)}")
            return result

        setattr(owner, name, hooked)

    around(PyArrowFile, "create", lambda file: f"creating {_kind(file.location)}")
    around(SqlCatalog, "commit_table", lambda _: "the commit of a table")
    around(SqlCatalog, "create_table", lambda _: "the creation of a table")
    around(ExportLease, "check", lambda _: "a check of the lease")
    record = ExportLease.record_success

    async def recorded(self: ExportLease, *arguments: Any) -> None:  # noqa: ANN401 - passed on
        step("before the result is recorded")
        await record(self, *arguments)
        step("after the result is recorded")

    ExportLease.record_success = recorded  # type: ignore[assignment, method-assign]
    asyncio.run(export(dsn, Export(warehouse=warehouse, keep_snapshots=keep)))


def _kind(location: str) -> str:
    name = location.rpartition("/")[2]
    if name.endswith(".parquet"):
        return "a data file"
    if name.endswith(".metadata.json"):
        return "the metadata"
    return "the manifest list" if name.startswith("snap-") else "a manifest"
