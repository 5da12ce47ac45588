"""The cost of an idle daemon: ``python -m benchmarks.idle [ORGS] [SECONDS]``.

The daemon holds five hundred orgs with a job each, outside the off-peak hours. Prints its share of a core, memory
and connections.
"""

# ruff: noqa: T201 - a script that prints its figures

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import yaml

from service.postgres.embedded.server import Embedded

CORE_MAX, MEMORY_MAX = 0.02, 200 * 2**20
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def configuration(dsn: str, orgs: int) -> str:
    """Return a configuration of ``orgs`` unreachable orgs and a job whose off-peak hours are hours away."""
    away = (datetime.now(UTC).hour + 12) % 24
    tree = {
        "database": {"dsn": dsn},
        "http": {"port": 0},
        "orgs": {
            f"org{number}": {
                "base_url": "http://127.0.0.1:9",
                "login_url": "http://127.0.0.1:9",
                "client_id": "idle",
                "client_secret": "idle-secret",
            }
            for number in range(orgs)
        },
        "jobs": {"daily": {"since": "P7D", "off_peak": f"{away:02}:00-{away:02}:30"}},
    }
    return yaml.safe_dump(tree)


async def measure(orgs: int, seconds: float, folder: Path) -> bool:
    """Measure one daemon and print the result; return whether it is within the bounds."""
    with Embedded(folder / "database") as dsn:
        config = folder / "idle.yaml"
        config.write_text(configuration(dsn, orgs))
        log, program = folder / "log", str(Path(sys.executable).with_name("flow-outcomes"))
        began = time.monotonic()
        with log.open("wb") as written:
            daemon = await asyncio.create_subprocess_exec(
                program,
                "run",
                "--config",
                str(config),
                stdout=written,
            )
        try:
            while log.read_bytes().count(b'"org_acquired"') < orgs:  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.2)
            print(f"{orgs} orgs acquired after {time.monotonic() - began:.1f} s")
            await asyncio.sleep(20)  # the first cycles, which start nothing
            cpu, at = cpu_seconds(daemon.pid), time.monotonic()
            await asyncio.sleep(seconds)
            share = (cpu_seconds(daemon.pid) - cpu) / (time.monotonic() - at)
            memory = resident(daemon.pid)
            with psycopg.connect(dsn) as connection:
                row = connection.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'flow-outcomes%'"
                ).fetchone()
        finally:
            daemon.terminate()
            began = time.monotonic()
            code = await daemon.wait()
    print(f"idle over {seconds:g} s: {share:.2%} of a core (at most {CORE_MAX:.0%}),", end=" ")
    print(f"{memory / 2**20:.0f} MB (at most {MEMORY_MAX // 2**20}), {row[0] if row else 0} connections")
    print(f"ended after {time.monotonic() - began:.1f} s with {code}")
    return share < CORE_MAX and memory < MEMORY_MAX and code == 0


def main() -> int:
    """Run the benchmark; the exit code is 0 if the daemon is within the bounds."""
    orgs = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    seconds = float(sys.argv[2]) if len(sys.argv[1:]) > 1 else 60.0
    with tempfile.TemporaryDirectory(prefix="flow-outcomes-idle-") as folder:
        Path(folder).chmod(0o711)  # the server's user must be able to enter it if this runs as root
        return 0 if asyncio.run(measure(orgs, seconds, Path(folder))) else 1


if __name__ == "__main__":
    sys.exit(main())
