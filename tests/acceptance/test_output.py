"""The daemon with an output that nobody reads or that is closed, and with more clients than descriptors."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.support.clients import get
from tests.support.program import PROGRAM

CONFIG = """
database: {{dsn: "postgresql://outcomes@127.0.0.1:1/none"}}
http: {{port: {port}}}
log: {{level: debug}}
orgs: {{acme: {{region: mypurecloud.com, client_id: id, client_secret: not-a-secret}}}}
jobs: {{}}
"""
PATIENCE = 30.0
END = 5.0  # seconds within which it ends: one of them for lines that nobody reads


def unread() -> tuple[int, int]:
    """A pipe that is full already."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x")
    os.set_blocking(writer, True)
    return reader, writer


@asynccontextmanager
async def running(
    folder: Path, redirection: str, output: int = asyncio.subprocess.DEVNULL
) -> AsyncIterator[tuple[int, asyncio.subprocess.Process]]:
    """A daemon without a database, and its port, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "flow-outcomes.yaml"
    config.write_text(CONFIG.format(port=port))
    command = f'{redirection} exec "{PROGRAM}" run --config "{config}"'
    if redirection.startswith(">"):
        command = f'exec "{PROGRAM}" run --config "{config}" {redirection}'
    process = await asyncio.create_subprocess_exec("/bin/sh", "-c", command, stdout=output, cwd=folder)
    try:
        async with asyncio.timeout(PATIENCE):
            while await health(port) != 200:
                assert process.returncode is None
                await asyncio.sleep(0.1)
        yield port, process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def health(port: int) -> int:
    """The status of /healthz; 0 if nothing answers within three seconds."""
    try:
        async with asyncio.timeout(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(get("/healthz", b"Connection: close"))
            line = await reader.readline()
            writer.close()
            return int(line.split()[1]) if line else 0
    except (OSError, TimeoutError):
        return 0


async def stop(process: asyncio.subprocess.Process) -> None:
    process.terminate()
    async with asyncio.timeout(END):
        assert await process.wait() == 0


async def test_nobody_reads_standard_output(tmp_path: Path) -> None:
    """It answers and ends in time while nobody reads its log, which then has what happened."""
    reader, writer = unread()
    try:
        async with running(tmp_path, "", writer) as (port, process):
            os.close(writer)
            assert await health(port) == 200
            await stop(process)
    finally:
        os.close(reader)


@pytest.mark.parametrize("redirection", [">&-", ">&- 2>&-", ">&- 2>&- <&-", ">/dev/full"])
async def test_standard_output_is_closed(tmp_path: Path, redirection: str) -> None:
    """It works and ends as usual without a standard output."""
    async with running(tmp_path, redirection) as (port, process):
        assert await health(port) == 200
        await stop(process)


async def test_more_half_open_connections_than_descriptors(tmp_path: Path) -> None:
    """With 64 descriptors and 300 half-open connections it answers, keeps descriptors free and logs little."""
    log = tmp_path / "log"
    with log.open("wb") as output:
        async with running(tmp_path, "ulimit -n 64;", output.fileno()) as (port, process):
            soft, _ = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
            assert soft == 64
            clients = []
            try:
                for _ in range(300):
                    client = socket.create_connection(("127.0.0.1", port), 5)
                    client.sendall(get("/healthz")[:20])
                    clients.append(client)
                for _ in range(5):
                    assert await health(port) == 200
                open_now = len(os.listdir(f"/proc/{process.pid}/fd"))  # noqa: PTH208
                assert open_now < 48
            finally:
                for client in clients:
                    client.close()
            await stop(process)
    assert b"out of system resource" not in log.read_bytes()
    assert log.stat().st_size < 100_000
