"""The process in which the daemon runs an export, so that extraction is not delayed and memory is returned.

The daemon starts ``python -m service.export``, writes the order as one line of JSON to its standard input, and
reads the result as one line from its standard output. The process ends when its standard input does, so it does
not outlive the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from service.config import Database, Export
from service.errors import ConfigError, ExportBusyError, ExportError, FlowOutcomesError
from service.export.exporter import Exported, TableExport, export
from service.telemetry import register_secret

_NICENESS = 10  # extraction goes first
_LONGEST_LINE = 16 * 1024 * 1024  # bytes
_LONGEST_REASON = 1000  # characters


async def run_worker(dsn: str, config: Export) -> Exported:
    """Run one export in a process of its own; a cancelled wait kills it.

    Raises:
        ConfigError: a package of the extra ``export`` is missing.
        ExportBusyError: another process exports.
        ExportError: the export failed, or its process did.
    """
    order = {
        "dsn": dsn,
        "catalog": config.properties(),
        "warehouse": config.warehouse,
        "namespace": config.namespace,
        "keep_snapshots": config.keep_snapshots.total_seconds(),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service.export"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
    )
    try:
        assert process.stdin is not None  # noqa: S101 - for mypy: all three are pipes
        assert process.stdout is not None  # noqa: S101
        assert process.stderr is not None  # noqa: S101
        process.stdin.write(json.dumps(order).encode() + b"\n")
        errors = asyncio.create_task(_last_line(process.stderr))
        with contextlib.suppress(ConnectionError):
            await process.stdin.drain()
        line = await process.stdout.readline()
        process.stdin.close()
        code, last = await process.wait(), await errors
    finally:
        if process.returncode is None:
            process.kill()
    if not line:
        raise ExportError(f"the export's process ended with {code}: {last or 'no message'}")
    return _result(json.loads(line))


async def _last_line(stream: asyncio.StreamReader) -> str:
    """Read a stream to its end; returns its last line that is not empty, which says what a crash was."""
    last = b""
    while chunk := await stream.read(65_536):
        last = (last + chunk)[-65_536:]
    lines = [line for line in last.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:_LONGEST_REASON] if lines else ""


def _result(document: dict[str, Any]) -> Exported:
    if "error" in document:
        reason = str(document["reason"])
        raise ExportBusyError(reason) if document["error"] == ExportBusyError.__name__ else ExportError(reason)
    tables = {name: TableExport(*each) for name, each in document.pop("tables").items()}
    taken_at = datetime.fromisoformat(document.pop("taken_at"))
    return Exported(tables=tables, taken_at=taken_at, **document)


def main() -> None:
    """Run the export that standard input orders."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the daemon too, which ends this process
    os.nice(_NICENESS)
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_daemon, daemon=True).start()
    config = Export(
        catalog=order["catalog"],
        warehouse=order["warehouse"],
        namespace=order["namespace"],
        keep_snapshots=timedelta(seconds=order["keep_snapshots"]),
    )
    for secret in (*config.secrets, *Database.model_validate({"dsn": order["dsn"]}).secrets):
        register_secret(secret)
    try:
        document = _document(asyncio.run(export(order["dsn"], config)))
    except ConfigError as error:
        document = {"error": "ConfigError", "reason": "; ".join(f"{key}: {text}" for key, text in error.faults)}
    except FlowOutcomesError as error:
        document = {"error": type(error).__name__, "reason": str(error)}
    print(json.dumps(document), flush=True)  # noqa: T201 - the result
    sys.stdout.flush()
    os._exit(0)  # threads of object storage clients may delay an ordinary exit


def _document(done: Exported) -> dict[str, Any]:
    return asdict(done) | {"taken_at": done.taken_at.isoformat()}


def _end_with_the_daemon() -> None:
    while sys.stdin.readline():
        pass
    os._exit(1)
