"""Memory is bounded, whatever a client of the port sends or does not read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from service.simulator import SimulatedOrg, Simulator, SimulatorConfig
from tests.support import clients
from tests.support.clients import Client
from tests.support.daemon import Daemon
from tests.support.program import Program

MIB = 2**20
MOST = 60 * MIB
ORGS = 10
LARGE, SMALL = "/api/status", "/healthz"
PATHS = (SMALL, "/metrics", LARGE, "/", "/api/now", "/api/calendar?org=org0", "/static/uplot.js", "/nowhere")
GZIP = b"Accept-Encoding: gzip"


class Kind(NamedTuple):
    """The behaviour of each connection."""

    pieces: Callable[[], Iterator[bytes]]
    seconds: float
    every: float = 0
    read_every: float = 0
    connections: int = 50


NEVER_READING = {
    **{path: Kind(lambda path=path: clients.pipelined(path), 2) for path in PATHS},  # type: ignore[misc]
    "packed": Kind(lambda: clients.pipelined(LARGE, GZIP), 3),
    "HTTP/1.0": Kind(lambda: clients.pipelined(LARGE, b"Connection: keep-alive", version=b"1.0"), 3),
    "one request": Kind(lambda: iter([clients.get(LARGE)]), 3),
}
SLOW = {
    "reads a byte a second": Kind(lambda: clients.pipelined(LARGE), 5, read_every=1),
    "half a request": Kind(lambda: iter([b"GET /metr"]), 3),
    "a header now and then": Kind(lambda: iter([b"GET / HTTP/1.1\r\n", *[b"X: 1\r\n"] * 100]), 3, every=0.1),
}
ONE = {
    path: Kind(lambda path=path: clients.pipelined(path), 8, connections=1)  # type: ignore[misc]
    for path in ("/metrics", LARGE)
}
SENDING_MUCH = {
    "a body of a terabyte": Kind(lambda: clients.sized_body(LARGE), 2),
    "chunks without end": Kind(lambda: clients.chunked_body(LARGE), 2),
    "a packed body": Kind(lambda: clients.packed_body(LARGE), 8),
    "a body after POST": Kind(lambda: (each.replace(b"GET", b"POST") for each in clients.sized_body(LARGE)), 2),
    "headers without end": Kind(lambda: clients.endless_headers(LARGE), 2),
    "one header without end": Kind(lambda: clients.endless_line(LARGE), 2),
    "requests of a megabyte": Kind(lambda: clients.with_headers(LARGE, 100), 2),
    "requests of almost what is allowed": Kind(lambda: clients.with_headers(LARGE, 4), 3),
    "another protocol": Kind(lambda: clients.upgraded(LARGE), 2),
}
NOT_REFUSED = {"requests of almost what is allowed", "another protocol"}  # where an answer is not read, these wait


def memory(pid: int, what: str) -> int:
    """A value of the process's /proc status, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def begin_high_water(pid: int) -> None:
    """Reset the process's high-water mark to its current memory."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


async def growth(daemon: Daemon, kind: Kind) -> tuple[int, list[Client]]:
    """The peak growth of the process's memory under a kind of clients, and these clients."""
    address = next(line["http_address"] for line in daemon.events if line["event"] == "daemon_started")
    before = memory(daemon.pid, "VmRSS:")
    begin_high_water(daemon.pid)
    some = [Client(address) for _ in range(kind.connections)]
    await asyncio.gather(
        *(each.run(kind.pieces(), kind.seconds, every=kind.every, read_every=kind.read_every) for each in some)
    )
    return memory(daemon.pid, "VmHWM:") - before, some


async def answered(daemon: Daemon, path: str, expected: int) -> str:
    """Request until the response has this status; on a busy machine a large one times out at first."""
    async with asyncio.timeout(60):
        while True:
            status, body = await daemon.get(path)
            if status == expected:
                return body
            assert status == 503, (path, body)
            await asyncio.sleep(0.5)


async def grown(program: Program, kinds: dict[str, Kind]) -> dict[str, tuple[int, list[Client]]]:
    """The growth and the clients of each kind, one after the other, for a daemon with a status of several MB."""
    orgs = {f"org{number}": SimulatedOrg() for number in range(ORGS)}
    hour = datetime.now(UTC).hour
    off_peak = f"{(hour + 6) % 24:02}:00-{(hour + 7) % 24:02}:00"  # nothing is extracted: every window is a gap
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        program.configure(
            simulator, jobs={"daily": {"since": "2019-01-01", "off_peak": off_peak}}, http={"port": 0}
        )
        daemon = await Daemon.start(program)
        for path in (*PATHS, *PATHS):
            body = await answered(daemon, path, 404 if path == "/nowhere" else 200)
            assert path != LARGE or len(body) > 2 * MIB
        found = {}
        for name, kind in kinds.items():
            found[name] = await growth(daemon, kind)
            assert (await daemon.get(SMALL))[0] == 200, name
        await answered(daemon, LARGE, 200)
        assert daemon.count("Unhandled exception") == 0
        assert not [line for line in daemon.events if line.get("logger") == "aiohttp.server"]
        await daemon.end()
        return found


def too_much(found: dict[str, tuple[int, list[Client]]]) -> dict[str, int]:
    """The kinds that exceeded the bound, with the growth in MiB."""
    return {name: grew // MIB for name, (grew, _) in found.items() if grew >= MOST}


async def test_clients_that_never_read(program: Program) -> None:
    """Fifty connections that send GETs without end and read nothing take less than 60 MB, on each path."""
    found = await grown(program, NEVER_READING)
    assert not too_much(found)
    for name, (_, some) in found.items():
        assert all(each.sent > (0 if name == "one request" else 20_000) for each in some), name


async def test_slow_clients(program: Program) -> None:
    """Fifty connections that read a byte a second, or take their time with a request, take less than 60 MB."""
    found = await grown(program, SLOW)
    assert not too_much(found)
    assert all(each.received > 1 for each in found["reads a byte a second"][1])


async def test_clients_that_send_much(program: Program) -> None:
    """Fifty connections that send bodies or headers without end take less than 60 MB; most are disconnected."""
    found = await grown(program, SENDING_MUCH)
    assert not too_much(found)
    for name, (_, some) in found.items():
        assert name in NOT_REFUSED or all(each.disconnected for each in some), name


async def test_one_client_that_reads_nothing(program: Program) -> None:
    """One connection that sends GETs without end and reads nothing for eight seconds takes less than 60 MB."""
    assert not too_much(await grown(program, ONE))
