"""An export in a process of its own that kills itself at a step."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import wraps
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import PyArrowFile

from service.config import Export
from service.export import maintenance
from service.export.exporter import export
from service.export.table import WarehouseTable
from service.postgres.export import ExportLease

TIMEOUT = 300.0  # seconds for a step, on a loaded machine
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__, "service.export.catalog", "service.export.maintenance"])


class Step(NamedTuple):
    """The n-th step of its name, from 1."""

    name: str
    number: int


def run_export(dsn: str, config: Export, kill_at: Step | None) -> tuple[int | None, list[Step]]:
    """Export, and kill the process at a step; without one never.

    Returns:
        The exit code, and the steps that were reached.
    """
    ours, theirs = _processes.Pipe(duplex=False)
    order = dsn, config.warehouse, config.keep_snapshots, kill_at, theirs
    process = _processes.Process(target=_run, args=order)
    process.start()
    theirs.close()
    steps: list[Step] = []
    try:
        while ours.poll(TIMEOUT):
            steps.append(Step(*ours.recv()))
    except EOFError:
        pass
    process.join(TIMEOUT)
    code = process.exitcode
    if code is None:
        process.kill()
    process.close()
    ours.close()
    return code, steps


def _run(dsn: str, warehouse: str, keep: timedelta, kill_at: Step | None, steps: Connection) -> None:
    reached: Counter[str] = Counter()
    turn = threading.Lock()

    def step(name: str) -> None:
        with turn:  # pyiceberg writes manifests in threads
            reached[name] += 1
            steps.send((name, reached[name]))
            if kill_at == (name, reached[name]):
                os.kill(os.getpid(), signal.SIGKILL)

    def around(owner: type, name: str, what: Callable[..., str]) -> None:
        original = getattr(owner, name)

        @wraps(original)
        def hooked(self: Any, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - passed on
            step(f"before {what(self, *arguments)}")
            result = original(self, *arguments, **named)
            step(f"after {what(self, *arguments)}")
            return result

        setattr(owner, name, hooked)

    around(PyArrowFile, "create", lambda file, *_: _file(file.location))
    around(SqlCatalog, "commit_table", lambda _, table, *__: f"the commit of {table.name()[-1]}")
    around(SqlCatalog, "create_table", lambda _, name, *__: f"the creation of {name}")
    around(ExportLease, "check", lambda *_: "a check of the lease")
    record = ExportLease.record_success

    async def recorded(self: ExportLease, *arguments: Any) -> None:  # noqa: ANN401 - passed on
        step("before the result is recorded")
        await record(self, *arguments)
        step("after the result is recorded")

    ExportLease.record_success = recorded  # type: ignore[assignment, method-assign]
    remove = maintenance.remove_unreferenced

    def removed(table: WarehouseTable, now: datetime, check: Callable[[], None]) -> int:
        def checked() -> None:
            check()
            step(f"before a removal in {table.relation.name}")

        return remove(table, now, checked)

    maintenance.remove_unreferenced = removed
    asyncio.run(export(dsn, Export(warehouse=warehouse, keep_snapshots=keep)))


def _file(location: str) -> str:
    """What a file is, and of which table: ``…/TABLE/data/…`` or ``…/TABLE/metadata/NAME``."""
    folder, metadata, name = location.rpartition("/metadata/")
    if not metadata:
        folder, kind = location.rpartition("/data/")[0], "a data file"
    elif name.endswith(".metadata.json"):
        kind = "the metadata"
    else:
        kind = "the manifest list" if name.startswith("snap-") else "a manifest"
    return f"{kind} of {folder.rpartition('/')[2]}"
