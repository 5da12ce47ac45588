"""From the first request to figures in PostgreSQL, beside what one would pick instead.

    python -m benchmarks.end_to_end [--flows 1000] [--days 100] [--rounds 3] [--without-peers]

A fast local API has ``flows`` times ``days`` entries of five outcomes, 100 to a page: 500,000 rows on 1,000 pages.
The contenders run in turn, round by round, each into an empty database of the same server: the program as it ships
(``run --once``, its limit out of the way), fetching alone and the least by hand (``benchmarks.by_hand``), dlt by
default and tuned, and the Singer SDK with a PostgreSQL target. Figures are medians; the processor's time is the
client's.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections import defaultdict
from pathlib import Path

from benchmarks import source
from benchmarks.measure import HERE, PROGRAM, Ground, Measured, ground, measured, median, told
from benchmarks.span import days_until_now

PEERS = HERE / ".venv" / "peers" / "bin"
FASTEST = 20_000  # requests a second: a limit that is never reached


def main() -> None:
    """Run it, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flows", type=int, default=1000)
    parser.add_argument("--days", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-peers", action="store_true")
    arguments = parser.parse_args()
    if not arguments.without_peers and not (PEERS / "target-postgres").exists():
        sys.exit("the peers are not installed: make bench does that, or leave them out with --without-peers")
    runs: dict[str, list[Measured]] = defaultdict(list)
    with ground() as place, source.running(flows=arguments.flows) as server:
        for _ in range(arguments.rounds):
            _round(place, server.url, arguments.days, runs, peers=not arguments.without_peers)
    _tell(runs, arguments.flows * arguments.days * 5)


def _round(place: Ground, url: str, days: int, runs: dict[str, list[Measured]], *, peers: bool) -> None:
    hand = [sys.executable, "-m", "benchmarks.by_hand"]
    runs["fetch and decode only"].append(measured([*hand, "fetch", url, str(days)]))
    runs["by hand: fetch, COPY, merge"].append(measured([*hand, "copy", url, str(days), place.database()]))
    since = f"{days_until_now(days)[0]:%Y-%m-%d}"
    config = place.configuration(
        place.database(), url, since, job={"lookback": f"P{days + 1}D"}, requests_per_second=FASTEST
    )
    once = [PROGRAM, "run", "--once", "--config", config]
    runs["flow-outcomes"].append(measured(once))
    runs["flow-outcomes, nothing changed"].append(measured(once))
    if not peers:
        return
    for how in ("default", "tuned"):
        dlt = [PEERS / "python", "-m", "benchmarks.peers.with_dlt", how]
        folder = place.folder / f"dlt_{how}_{len(runs[f'dlt, {how}'])}"
        runs[f"dlt, {how}"].append(measured([*dlt, url, str(days), place.database(), str(folder)]))
    runs["Singer SDK, PostgreSQL target"].append(measured(["sh", "-c", _singer(place, url, days)]))


def _singer(place: Ground, url: str, days: int) -> str:
    config = Path(place.folder) / "singer.json"
    settings = {"sqlalchemy_url": place.database(), "use_copy": True, "default_target_schema": "singer"}
    config.write_text(json.dumps(settings), encoding="utf-8")
    tap = shlex.join([str(PEERS / "python"), "-m", "benchmarks.peers.singer_tap", url, str(days)])
    target = shlex.join([str(PEERS / "target-postgres"), "--config", str(config)])
    return f"{tap} 2> /dev/null | {target} 2> /dev/null"


def _tell(runs: dict[str, list[Measured]], rows: int) -> None:
    ours = runs["flow-outcomes"]
    bound = runs["by hand: fetch, COPY, merge"]
    told(f"{rows:,} rows, medians of {len(ours)} rounds")
    told(f"{'':<32}{'wall s':>8}{'CPU s':>8}{'peak MB':>9}{'our wall':>10}{'our CPU':>9}")
    for name, each in runs.items():
        wall, cpu = median(each, lambda run: run.wall), median(each, lambda run: run.cpu)
        beside = [median(ours, lambda run: run.wall) / wall, median(ours, lambda run: run.cpu) / cpu]
        told(
            f"{name:<32}{wall:>8.2f}{cpu:>8.2f}{median(each, lambda run: run.peak):>9.0f}"
            f"{beside[0]:>9.2f}x{beside[1]:>8.2f}x"
        )
    pairs = sorted(one.wall / other.wall for one, other in zip(ours, bound, strict=True))
    told(f"wall against the least by hand, pair by pair: {', '.join(f'{pair:.2f}' for pair in pairs)}")


if __name__ == "__main__":
    main()
