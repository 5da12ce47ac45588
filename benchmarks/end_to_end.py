"""From the first request to figures in PostgreSQL, beside the alternatives.

    python -m benchmarks.end_to_end [--flows 1000] [--days 100] [--rounds 3] [--without-peers]

A fast local API has ``flows`` times ``days`` entries of five outcomes, 100 to a page: 500,000 rows on 1,000 pages.
The contenders take turns in each round, each with an empty database on the same server: the program as released
(``run --once``, with a limit that is never reached), fetching alone and the minimum by hand
(``benchmarks.by_hand``), dlt by default and tuned, and the Singer SDK with a PostgreSQL target. The program and
the minimum by hand run again with unchanged data, after a vacuum. Figures are medians. CPU time is the client's;
``WAL`` is what the server wrote to its log. ``requesting`` is the time from the first request to the end of the
process: the program sends no request in its first second, because it assumes that the limit was just used up.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import source
from benchmarks.measure import HERE, PROGRAM, Measurement, Testbed, measure_command, print_line, start_testbed
from benchmarks.span import days_until_now

PEERS = HERE / ".venv" / "peers" / "bin"
HAND, HAND_AGAIN = "by hand: fetch, COPY, merge", "by hand, nothing changed"
OURS, OURS_AGAIN = "flow-outcomes", "flow-outcomes, nothing changed"
FASTEST = 20_000  # requests per second: a limit that is never reached


def main() -> None:
    """Run the benchmark and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flows", type=int, default=1000)
    parser.add_argument("--days", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-peers", action="store_true")
    arguments = parser.parse_args()
    if not arguments.without_peers and not (PEERS / "target-postgres").exists():
        sys.exit("the peers are not installed: run make bench, or use --without-peers")
    runs: dict[str, list[Run]] = defaultdict(list)
    with start_testbed() as testbed, source.running(flows=arguments.flows) as server:
        for _ in range(arguments.rounds):
            _round(testbed, server, arguments.days, runs, peers=not arguments.without_peers)
    _print_results(runs, arguments.flows * arguments.days * 5)


class Run(NamedTuple):
    """One run of a contender.

    Attributes:
        process: the measurement of the process.
        requesting: seconds from its first request to its end.
        wal: megabytes that the server wrote to its log.
    """

    process: Measurement
    requesting: float
    wal: float


def _round(
    testbed: Testbed, server: source.Running, days: int, runs: dict[str, list[Run]], *, peers: bool
) -> None:
    def run(name: str, command: Sequence[str | Path]) -> None:
        server.reset()
        before = testbed.wal()
        process = measure_command(command)
        runs[name].append(Run(process, process.ended - server.stats()["first"], testbed.wal() - before))

    url, by_hand, mine = server.url, testbed.database(), testbed.database()
    hand = [sys.executable, "-m", "benchmarks.by_hand"]
    run("fetch and decode only", [*hand, "fetch", url, str(days)])
    for name in (HAND, HAND_AGAIN):
        run(name, [*hand, "copy", url, str(days), by_hand])
        testbed.vacuum(by_hand)
    since = f"{days_until_now(days)[0]:%Y-%m-%d}"
    config = testbed.configuration(
        mine, url, since, job={"lookback": f"P{days + 1}D"}, requests_per_second=FASTEST
    )
    for name in (OURS, OURS_AGAIN):
        run(name, [PROGRAM, "run", "--once", "--config", config])
        testbed.vacuum(mine)
    if not peers:
        return
    for how in ("default", "tuned"):
        dlt = [PEERS / "python", "-m", "benchmarks.peers.with_dlt", how]
        folder = testbed.folder / f"dlt_{how}_{len(runs[f'dlt, {how}'])}"
        run(f"dlt, {how}", [*dlt, url, str(days), testbed.database(), str(folder)])
    run("Singer SDK, PostgreSQL target", ["sh", "-c", _singer(testbed, url, days)])


def _singer(testbed: Testbed, url: str, days: int) -> str:
    config = Path(testbed.folder) / "singer.json"
    settings = {"sqlalchemy_url": testbed.database(), "use_copy": True, "default_target_schema": "singer"}
    config.write_text(json.dumps(settings), encoding="utf-8")
    tap = shlex.join([str(PEERS / "python"), "-m", "benchmarks.peers.singer_tap", url, str(days)])
    target = shlex.join([str(PEERS / "target-postgres"), "--config", str(config)])
    return f"{tap} 2> /dev/null | {target} 2> /dev/null"


def _print_results(runs: dict[str, list[Run]], rows: int) -> None:
    ours = runs[OURS]
    print_line(f"{rows:,} rows, medians of {len(ours)} rounds")
    print_line(
        f"{'':<32}{'wall s':>8}{'requesting s':>14}{'CPU s':>8}{'peak MB':>9}{'WAL MB':>8}"
        f"{'our wall':>10}{'our CPU':>9}"
    )
    for name, each in runs.items():
        wall, requesting, cpu, peak, wal = _medians(each)
        our_wall, _, our_cpu, *_ = _medians(ours)
        print_line(
            f"{name:<32}{wall:>8.2f}{requesting:>14.2f}{cpu:>8.2f}{peak:>9.0f}{wal:>8.1f}"
            f"{our_wall / wall:>9.2f}x{our_cpu / cpu:>8.2f}x"
        )
    for what, one, other in (("", OURS, HAND), (", nothing changed", OURS_AGAIN, HAND_AGAIN)):
        pairs = list(zip(runs[one], runs[other], strict=True))
        print_line(
            f"against the minimum by hand{what}, pair by pair:"
            f" wall {_ratios(mine.process.wall / minimum.process.wall for mine, minimum in pairs)};"
            f" requesting {_ratios(mine.requesting / minimum.requesting for mine, minimum in pairs)}"
        )


def _medians(runs: Sequence[Run]) -> tuple[float, ...]:
    """Return the medians of wall, requesting, CPU, peak and WAL."""
    each = [(run.process.wall, run.requesting, run.process.cpu, run.process.peak, run.wal) for run in runs]
    return tuple(map(statistics.median, zip(*each, strict=True)))


def _ratios(each: Iterable[float]) -> str:
    return ", ".join(f"{ratio:.2f}" for ratio in sorted(each))


if __name__ == "__main__":
    main()
