"""The resources that an idle daemon in this process holds."""

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

from service.postgres.kept_connections import KeptConnections
from service.runtime.daemon import Daemon
from service.simulator import Simulator
from service.web.kept_weeks import KeptWeeks
from service.web.response_cache import ResponseCache

MIB = 2**20


@dataclass(frozen=True)
class Footprint:
    """Resources at one moment.

    Attributes:
        tasks: asyncio tasks, by the name of the coroutine.
        descriptors: open file descriptors, by kind.
        connections: database connections, by application_name.
        objects: instances of the program's classes, by name.
        tracked: objects that the garbage collector tracks.
        timers: jobs of the scheduler.
        series: time series of ``/metrics``.
        resident: resident memory, in bytes.
    """

    tasks: Counter[str]
    descriptors: Counter[str]
    connections: Counter[str]
    objects: Counter[str]
    tracked: int
    timers: int
    series: int
    resident: int

    @classmethod
    async def of(cls, daemon: Daemon, simulator: Simulator, dsn: str) -> Footprint:
        """Measure an idle daemon, after the simulator has dropped its records."""
        await _drop_caches(daemon, simulator)
        gc.collect()
        return cls(
            tasks=Counter(getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()),
            descriptors=_descriptors(),
            connections=_connections(dsn),
            objects=_objects(),
            tracked=len(gc.get_objects()),
            timers=len(daemon._timers._scheduler.get_jobs()),
            series=generate_latest(daemon._reporter.registry).count(b"\n"),
            resident=_resident(),
        )

    def grown(self, since: Footprint) -> dict[str, object]:
        """Return what has grown since; always with timers, series, objects and resident memory."""
        more = {
            name: dict(now - before)
            for name in ("tasks", "descriptors", "connections", "objects")
            if (now := getattr(self, name)) - (before := getattr(since, name))
        }
        return {
            **more,
            "timers": self.timers - since.timers,
            "series": self.series - since.series,
            "tracked": self.tracked - since.tracked,
            "resident MiB": round((self.resident - since.resident) / MIB, 1),
        }


async def idle(daemon: Daemon, *, within: float = 60.0) -> None:
    """Wait until the daemon holds every org, no cycle runs and none is requested."""

    def busy() -> list[str]:
        reasons = ["signals"] if daemon.signals.any.is_set() else []
        reasons += [task.get_name() for task in daemon._draining]
        for name, (loop, _) in daemon._loops.items():
            if loop.worker is None or loop.worker.load().in_flight:
                reasons.append(name)
            reasons += [job._name for job in loop._jobs.values() if job._running or job._triggered.is_set()]
        return reasons

    idle_reads, clock = 0, asyncio.get_running_loop()
    until = clock.time() + within
    while idle_reads < 5:  # a single read may fall between two steps
        assert clock.time() < until, (busy(), list(daemon._reporter.warned)[-5:])
        await asyncio.sleep(0.05)
        idle_reads = 0 if busy() else idle_reads + 1


async def _drop_caches(daemon: Daemon, simulator: Simulator) -> None:
    """Drop what is kept on purpose: idle connections and bounded caches."""
    for loop, _ in daemon._loops.values():
        assert loop.worker is not None
        transport = loop.worker.client._transport
        for session in transport._sessions.values():
            assert session.connector is None or not session.connector._acquired, "a connection was not released"
        await transport.close()
    runtime = daemon._runtime
    assert runtime is not None
    await runtime.database.reset()
    _drop_records(simulator)
    gc.unfreeze()  # a command of another test in this process froze its imports
    for each in gc.get_objects():
        if isinstance(each, functools._lru_cache_wrapper) and each.__module__.startswith("service."):
            each.cache_clear()
    for each in gc.get_objects():
        match each:
            case KeptConnections():
                for kept in each._idle:
                    await kept.connection.close()
                each._idle.clear()
            case KeptWeeks():
                each._kept.clear()
            case ResponseCache():
                each._entries.clear()
    await asyncio.sleep(0.3)  # so that the tasks of these connections end


def _drop_records(simulator: Simulator) -> None:
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
        result = connection.execute(
            "SELECT split_part(application_name, ' ', 1) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchall()
    return Counter(str(name) for (name,) in result)


def _descriptors() -> Counter[str]:
    result: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            result[str(entry.readlink()).partition(":")[0]] += 1
        except FileNotFoundError:  # the descriptor of this listing
            continue
    return result


def _resident() -> int:
    ctypes.CDLL(None).malloc_trim(0)  # free memory does not count
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
