"""Precision and recall of suggested aliases, for renames, ends and begins planted in generated orgs.

    python -m benchmarks.suggestions [--seeds 200] [--kind daily …] [--wrong]

``tests/support/planted_renames.py`` describes the kinds. Prints a line a kind, and how often a suggestion of each
confidence is correct.
"""

# ruff: noqa: T201 - a script that prints its figures

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from service.postgres.embedded.server import Embedded
from service.postgres.migrate import migrate
from tests.support.planted_renames import KINDS, Planted, Result, evaluate, plant, store


def measure(kind: str, seeds: range) -> tuple[Result, dict[str, Planted]]:
    """Plant, store and evaluate one kind."""
    orgs = {f"org_{seed}": plant(kind, seed) for seed in seeds}
    folder = Path(tempfile.mkdtemp(prefix="flow-outcomes-suggestions-"))
    with Embedded(folder, durable=False) as dsn:
        migrate(dsn)
        store(dsn, orgs)
        return evaluate(dsn, orgs), orgs


def main() -> None:
    """Print a line a kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200, help="orgs of each kind; a fifth of it where hourly")
    parser.add_argument("--first", type=int, default=1000, help="the first seed")
    parser.add_argument("--kind", nargs="*", choices=KINDS, default=KINDS, help="default: all")
    parser.add_argument("--wrong", action="store_true", help="print what was missed and what was wrong")
    given = parser.parse_args()
    print(f"{'kind':<10} {'renames':>8} {'found':>8} {'wrong':>6} {'of found':>9}")
    every: list[tuple[float, bool]] = []
    for kind in given.kind:
        number = max(1, given.seeds // 5) if kind == "hourly" else given.seeds
        result, _ = measure(kind, range(given.first, given.first + number))
        recall = f"{result.found / result.planted:8.1%}" if result.planted else f"{'-':>8}"
        suggested = result.found + len(result.wrong)
        share = f"{len(result.wrong) / suggested:9.1%}" if suggested else f"{'-':>9}"
        print(f"{kind:<10} {result.planted:>8} {recall} {len(result.wrong):>6} {share}", flush=True)
        every += result.confidences
        if given.wrong:
            for pair, confidence in result.wrong:
                print(f"  wrong  {confidence} {pair.flow[:8]} {pair.old!r} -> {pair.new!r}")
            for pair in result.missed:
                print(f"  missed {pair.flow[:8]} {pair.old!r} -> {pair.new!r}")
    for low in (0.5, 0.6, 0.7, 0.8, 0.9):
        within = [
            correct
            for confidence, correct in every
            if low <= confidence < low + 0.1 or (low, confidence) == (0.9, 1)
        ]
        if within:
            print(
                f"confidence {low} to {low + 0.1:.1f}: {len(within)} suggestions,"
                f" {sum(within) / len(within):.0%} correct"
            )


if __name__ == "__main__":
    main()
