"""Start-up time of a command line and of ``run``: ``python -m benchmarks.startup [--rounds 20] [--runs 10]``.

Each round runs, one after the other, ``python -c pass`` and the program with ``--version``, ``--help``, a
command's ``--help`` and a usage error. Prints median wall times and their ratios to ``python -c pass``; the goal
is 0.15 s on an idle machine. Exits 1 if a ratio is above eight.

Then it starts ``run`` on an up-to-date schema. Prints the median and the least time from the start of the process
to ``daemon_started`` and to the first request, and the CPU time to ``daemon_started``; and the same of a
``run --once`` of an org that is up to date, from its start to its end. ``--runs 0`` leaves both out.
"""

# ruff: noqa: T201 - a script that prints its figures

from __future__ import annotations

import argparse
import queue
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks import source
from benchmarks.idle import cpu_seconds
from benchmarks.measure import PROGRAM, measure_command, start_testbed

RATIO_MAX = 8.0
BASELINE = "python -c pass"
COMMANDS: dict[str, list[str]] = {
    BASELINE: [sys.executable, "-c", "pass"],
    "--version": [str(PROGRAM), "--version"],
    "--help": [str(PROGRAM), "--help"],
    "run --help": [str(PROGRAM), "run", "--help"],
    "simulate --help": [str(PROGRAM), "simulate", "--help"],
    "usage error": [str(PROGRAM), "nonsense"],
}


def wall_time(command: list[str]) -> float:
    """Seconds from the start of a process to its end."""
    began = time.perf_counter()
    subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - the benchmark's own commands
    return time.perf_counter() - began


class Start(NamedTuple):
    """One start of ``run``, in seconds."""

    started: float
    cpu: float
    first_request: float


def measure_runs(rounds: int) -> list[Start]:
    """Start ``run`` several times against a server that accepts connections and answers nothing."""
    found: list[Start] = []
    arrivals: queue.SimpleQueue[float] = queue.SimpleQueue()
    with start_testbed() as testbed, socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                arrivals.put(time.perf_counter())
                connection.close()

        threading.Thread(target=accept, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        config = testbed.configuration(testbed.database(), url, "P3D")
        for _ in range(rounds):
            while not arrivals.empty():
                arrivals.get()
            found.append(_start([str(PROGRAM), "run", "--config", str(config)], arrivals))
        server.shutdown(socket.SHUT_RDWR)
    return found


def _start(command: list[str], arrivals: queue.SimpleQueue[float]) -> Start:
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:  # noqa: S603 - ours
        try:
            assert daemon.stdout is not None  # noqa: S101 - for mypy: it is a pipe
            line = daemon.stdout.readline()
            started, cpu = time.perf_counter() - began, cpu_seconds(daemon.pid)
            if '"daemon_started"' not in line:
                raise RuntimeError(f"run wrote {line!r}")
            return Start(started, cpu, arrivals.get(timeout=60) - began)
        finally:
            daemon.terminate()
            daemon.communicate()


def measure_once(rounds: int) -> list[float]:
    """Run an up-to-date org's lookback of three days several times; seconds from start to end."""
    with start_testbed() as testbed, source.running(flows=50, limit=10) as server:
        config = testbed.configuration(testbed.database(), server.url, "P30D")
        command = [PROGRAM, "run", "--once", "--config", config]
        measure_command(command)
        return [measure_command(command).wall for _ in range(rounds)]


def print_runs(runs: list[Start]) -> None:
    """Print the median and the least of each figure."""
    for name, values in zip(
        ("run to daemon_started", "its CPU time", "run to its first request"), zip(*runs, strict=True), strict=True
    ):
        print_times(name, values)


def print_times(name: str, seconds: Sequence[float]) -> None:
    """Print the median and the least."""
    print(f"{name:<25} {statistics.median(seconds) * 1000:6.0f} ms, at least {min(seconds) * 1000:.0f} ms")


def main() -> int:
    """Measure every command in each round and print the medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--runs", type=int, default=10)
    arguments = parser.parse_args()
    rounds = arguments.rounds
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, command in COMMANDS.items():
            times[name].append(wall_time(command))
    medians = {name: statistics.median(each) for name, each in times.items()}
    for name, seconds in medians.items():
        print(f"{name:<16} {seconds * 1000:6.0f} ms  {seconds / medians[BASELINE]:4.1f} times {BASELINE}")
    if arguments.runs:
        print_runs(measure_runs(arguments.runs))
        once = measure_once(arguments.runs)
        print_times("run --once, up to date", once)
    return int(max(medians.values()) > RATIO_MAX * medians[BASELINE])


if __name__ == "__main__":
    sys.exit(main())
