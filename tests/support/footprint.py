"""What a daemon in this process holds on to while it has nothing to do."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import gc
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psycopg
from prometheus_client import generate_latest

from service.runtime.daemon import Daemon
from service.simulator import Simulator

MIB = 2**20


@dataclass(frozen=True)
class Footprint:
    """At one moment.

    Attributes:
        tasks: of asyncio, by the coroutine's name.
        descriptors: that the process has open, by what they are.
        connections: to the database, by application_name.
        objects: of the program's own classes, by name.
        tracked: all objects that the garbage collector knows.
        bells: that the scheduler is to ring.
        series: that ``/metrics`` shows.
        resident: bytes.
    """

    tasks: Counter[str]
    descriptors: Counter[str]
    connections: Counter[str]
    objects: Counter[str]
    tracked: int
    bells: int
    series: int
    resident: int

    @classmethod
    async def of(cls, daemon: Daemon, simulator: Simulator, dsn: str) -> Footprint:
        """What is there now; the daemon idle, the simulator's memory of what it was asked given up."""
        await _rest(daemon, simulator)
        gc.collect()
        return cls(
            tasks=Counter(getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()),
            descriptors=_descriptors(),
            connections=_connections(dsn),
            objects=_objects(),
            tracked=len(gc.get_objects()),
            bells=len(daemon._timers._scheduler.get_jobs()),
            series=generate_latest(daemon._reporter.registry).count(b"\n"),
            resident=_resident(),
        )

    def grown(self, since: Footprint) -> dict[str, object]:
        """What there is more of than there was; resident memory and all objects told whatever they are."""
        more = {
            name: dict(now - before)
            for name in ("tasks", "descriptors", "connections", "objects")
            if (now := getattr(self, name)) - (before := getattr(since, name))
        }
        return {
            **more,
            "bells": self.bells - since.bells,
            "series": self.series - since.series,
            "tracked": self.tracked - since.tracked,
            "resident MiB": round((self.resident - since.resident) / MIB, 1),
        }


async def idle(daemon: Daemon, *, within: float = 60.0) -> None:
    """Wait until every org is held, no cycle runs and none was asked for."""

    def busy() -> list[str]:
        found = ["signals"] if daemon.signals.any.is_set() else []
        found += [task.get_name() for task in daemon._draining]
        for name, (loop, _) in daemon._loops.items():
            if loop.worker is None or loop.worker.load().in_flight:
                found.append(name)
            found += [job._name for job in loop._jobs.values() if job._running or job._triggered.is_set()]
        return found

    quiet, clock = 0, asyncio.get_running_loop()
    until = clock.time() + within
    while quiet < 5:  # one look may fall between two steps
        assert clock.time() < until, (busy(), list(daemon._reporter.warned)[-5:])
        await asyncio.sleep(0.05)
        quiet = 0 if busy() else quiet + 1


async def _rest(daemon: Daemon, simulator: Simulator) -> None:
    """Let go of what is kept for a while on purpose: idle connections, and bounded memories."""
    for loop, _ in daemon._loops.values():
        assert loop.worker is not None
        transport = loop.worker.client._transport
        connector = transport._session and transport._session.connector
        assert not connector or not connector._acquired, "a connection was never given back"
        await transport.close()
    runtime = daemon._runtime
    assert runtime is not None
    await runtime.database.reset()
    _forget(simulator)
    gc.unfreeze()  # a command that another test ran in this process has hidden what it imported
    for each in gc.get_objects():
        if isinstance(each, functools._lru_cache_wrapper) and each.__module__.startswith("service."):
            each.cache_clear()
    await asyncio.sleep(0.3)  # for those to end whose connection that was


def _forget(simulator: Simulator) -> None:
    simulator.arrivals.clear()
    for org in simulator.orgs.values():
        org.cursors._cursors.clear()
        org.page_cache._pages.clear()
        org.page_cache._bytes = 0
        getattr(org.centre, "_days", {}).clear()
    stale = [token for token, (_, expires) in simulator.tokens._tokens.items() if expires == float("-inf")]
    for token in stale:
        del simulator.tokens._tokens[token]


def _objects() -> Counter[str]:
    names = (f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects())
    return Counter(name for name in names if name.startswith("service.") and ".simulator." not in name)


def _connections(dsn: str) -> Counter[str]:
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            "SELECT split_part(application_name, ' ', 1) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchall()
    return Counter(str(name) for (name,) in found)


def _descriptors() -> Counter[str]:
    found: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[str(entry.readlink()).partition(":")[0]] += 1
        except FileNotFoundError:  # the one that listed them
            continue
    return found


def _resident() -> int:
    ctypes.CDLL(None).malloc_trim(0)  # what is free and kept for later is not held on to
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
