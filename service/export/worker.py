"""The process in which the daemon runs an export, so that extraction is not delayed and memory is returned.

The daemon starts ``python -m service.export``, writes the order as one line of JSON to its standard input, and
reads the result as one line from its standard output. The process ends when its standard input does, so it does
not outlive the daemon. ``check`` tries the catalog and the warehouse in such a process, since a client that hangs
can only be killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from service.config import Database, Export
from service.errors import ConfigError, ExportBusyError, ExportError, FlowOutcomesError
from service.export.exporter import Exported, TableExport, export
from service.model import Finding, State
from service.telemetry import register_secret, traces

_NICENESS = 10  # extraction goes first
_LONGEST_LINE = 16 * 1024 * 1024  # bytes
_LONGEST_REASON = 1000  # characters


async def run_worker(dsn: str, config: Export) -> Exported:
    """Run one export in a process of its own, as one span of this process; a cancelled wait kills it.

    Raises:
        ConfigError: a package of the extra ``export`` is missing.
        ExportBusyError: another process exports.
        ExportError: the export failed, or its process did.
    """
    with traces.span("export", warehouse=config.warehouse) as exporting:
        lines = [line async for line in _lines({"task": "export", "dsn": dsn} | _document_of(config))]
        done = _result(json.loads(lines[0]))
        exporting.set(export=done.number, months=done.files, rows=done.rows)
        return done


async def run_probe(config: Export, dsn: str | None) -> AsyncGenerator[Finding, None]:
    """Try the catalog and the warehouse in a process of its own, which is killed when the generator is closed.

    Args:
        config: the section ``export``.
        dsn: the database; None where the catalog is there and cannot be used.

    Yields:
        A finding for each of the two, as soon as there is one.

    Raises:
        ExportError: the process failed.
    """
    async with aclosing(_lines({"task": "probe", "dsn": dsn} | _document_of(config))) as lines:
        async for line in lines:
            subject, state, detail, fix = json.loads(line)
            yield Finding(subject, State(state), detail, fix)


def _document_of(config: Export) -> dict[str, Any]:
    return {
        "catalog": config.properties(),
        "warehouse": config.warehouse,
        "namespace": config.namespace,
        "keep_snapshots": config.keep_snapshots.total_seconds(),
    }


async def _lines(order: dict[str, Any]) -> AsyncGenerator[bytes, None]:
    """The lines that the process writes.

    Raises:
        ExportError: it wrote none, or failed after it wrote some.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service.export"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
    )
    seen = False
    try:
        assert process.stdin is not None  # noqa: S101 - for mypy: all three are pipes
        assert process.stdout is not None  # noqa: S101
        assert process.stderr is not None  # noqa: S101
        process.stdin.write(json.dumps(order).encode() + b"\n")
        errors = asyncio.create_task(_last_line(process.stderr))
        with contextlib.suppress(ConnectionError):
            await process.stdin.drain()
        while line := await process.stdout.readline():
            seen = True
            yield line
        process.stdin.close()
        code, last = await process.wait(), await errors
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code or not seen:
        raise ExportError(f"the export's process ended with {code}: {last or 'no message'}")


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
    """Run the export, or try the catalog and the warehouse, as standard input orders."""
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
    secrets = Database.model_validate({"dsn": order["dsn"]}).secrets if order["dsn"] else ()
    for secret in (*config.secrets, *secrets):
        register_secret(secret)
    if order["task"] == "probe":
        from service.export.probe import probe

        for found in probe(config, order["dsn"]):
            print(json.dumps(found), flush=True)  # noqa: T201 - a result
    else:
        print(json.dumps(_export(order["dsn"], config)), flush=True)  # noqa: T201 - the result
    sys.stdout.flush()
    os._exit(0)  # threads of object storage clients may delay an ordinary exit


def _export(dsn: str, config: Export) -> dict[str, Any]:
    try:
        return _document(asyncio.run(export(dsn, config)))
    except ConfigError as error:
        return {"error": "ConfigError", "reason": "; ".join(f"{key}: {text}" for key, text in error.faults)}
    except FlowOutcomesError as error:
        return {"error": type(error).__name__, "reason": str(error)}


def _document(done: Exported) -> dict[str, Any]:
    return asdict(done) | {"taken_at": done.taken_at.isoformat()}


def _end_with_the_daemon() -> None:
    while sys.stdin.readline():
        pass
    os._exit(1)
