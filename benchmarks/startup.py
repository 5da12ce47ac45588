"""Start-up time of a command line that ends while it is parsed: ``python -m benchmarks.startup [--rounds 20]``.

Each round runs, one after the other, ``python -c pass`` and the program with ``--version``, ``--help``, a
command's ``--help`` and a usage error. Prints median wall times and their ratios to ``python -c pass``; the goal
is 0.15 s on an idle machine. Exits 1 if a ratio is above eight.
"""

# ruff: noqa: T201 - a script that prints its figures

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from benchmarks.measure import PROGRAM

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


def main() -> int:
    """Measure every command in each round and print the medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, command in COMMANDS.items():
            times[name].append(wall_time(command))
    medians = {name: statistics.median(each) for name, each in times.items()}
    for name, seconds in medians.items():
        print(f"{name:<16} {seconds * 1000:6.0f} ms  {seconds / medians[BASELINE]:4.1f} times {BASELINE}")
    return int(max(medians.values()) > RATIO_MAX * medians[BASELINE])


if __name__ == "__main__":
    sys.exit(main())
