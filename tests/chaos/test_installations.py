"""Eight orgs on two installations with two daemons each, read through a third database."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pytest

from service.clock import SystemClock
from service.simulator import (
    CorrectedCentre,
    GeneratedCentre,
    OutcomeCount,
    SimulatedOrg,
    Simulator,
    SimulatorConfig,
)
from service.simulator.instants import to_milliseconds
from tests.chaos.test_chaos import SEED
from tests.support.daemon import TIMEOUT, Reader
from tests.support.fault_harness import DAYS
from tests.support.installations import ORGS, InstallationProcesses, ReportsDatabase, two_installations
from tests.support.program import expected, figures, today

ROUNDS = int(os.environ.get("FLOW_OUTCOMES_CHAOS_INSTALLATIONS", "20"))
KINDS = ("database", "daemon", "both")
DAY = timedelta(days=1)
SOURCE = SimulatedOrg(requests_per_second=None, latency=0.08)
NOW = SystemClock().now()
WINDOWS = [day for back in range(DAYS, 0, -1) if (day := today() - back * DAY) + DAY + timedelta(hours=1) < NOW]

Shown = Mapping[tuple[str, datetime, str], tuple[int | None, float | None, float | None]]


class Moment(NamedTuple):
    """The figures of an org at an instant at which no merge was committing: in each bucket old or new ones."""

    at: datetime
    org: str
    old: Shown
    new: Shown


class FixedCentre(GeneratedCentre):
    """Its figures are those of one instant, although the clock runs."""

    def count_outcomes(self, flow_id: str, start: int, end: int, at: int) -> list[OutcomeCount]:
        """Return the counts as visible at ``NOW``."""
        return super().count_outcomes(flow_id, start, end, min(at, to_milliseconds(NOW)))


def simulated() -> Simulator:
    """Eight orgs whose figures change only where a test corrects them."""
    orgs = {
        org: replace(SOURCE, centre=CorrectedCentre(FixedCentre(number, flows=6)))
        for number, org in enumerate(org for orgs in ORGS.values() for org in orgs)
    }
    return Simulator(SimulatorConfig(orgs=orgs))


class InstallationFaults:
    """Kills databases and daemons while figures are extracted, and checks what the third database shows.

    Attributes:
        fired: how often each kind happened, by installation.
    """

    def __init__(
        self,
        simulator: Simulator,
        installations: Mapping[str, InstallationProcesses],
        reports: ReportsDatabase,
        seed: int,
    ) -> None:
        self.fired: Counter[tuple[str, str]] = Counter()
        self._simulator = simulator
        self._installations = installations
        self._reports = reports
        self._chance = random.Random(seed)  # noqa: S311 - not for cryptography
        self._moments: list[Moment] = []
        self._restated: Counter[tuple[object, ...]] = Counter()
        self._shown: Mapping[str, Shown] = {}
        self._complete = {(org, "complete", len(WINDOWS)) for org in simulator.orgs}

    async def begin(self) -> None:
        """Wait until the first extraction is complete, and each daemon holds two orgs."""
        await asyncio.gather(*(each.wait_until_shared() for each in self._installations.values()))
        async with asyncio.timeout(TIMEOUT):
            while await self._states() != self._complete:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.1)
        await self._compare({org: self._truth(org) for org in self._simulator.orgs})

    async def round(self, kinds: Mapping[str, str]) -> None:
        """Correct a figure of each window; kill what ``kinds`` names while all are extracted; recover, check."""
        installations = self._installations.values()
        await asyncio.gather(*(each.wait_until_shared() for each in installations))
        self._correct()
        new = {org: self._truth(org) for org in self._simulator.orgs}
        for each in installations:
            for daemon in each.daemons:
                daemon.send(signal.SIGUSR1)
        await asyncio.gather(*(self._cause(self._installations[name], kind) for name, kind in kinds.items()))
        crashed = [self._installations[name] for name, kind in kinds.items() if kind != "daemon"]
        if crashed:
            await self._read_during_outage(crashed, new)
        for each in crashed:
            await asyncio.to_thread(each.server.start)
        await asyncio.gather(*(each.start_daemons() for each in installations))
        self.fired.update(kinds.items())
        await self._settle(new)

    async def _cause(self, installation: InstallationProcesses, kind: str) -> None:
        arrived = len(self._simulator.arrivals)
        while not any(  # noqa: ASYNC110 - no event
            each.org in installation.orgs for each in islice(self._simulator.arrivals, arrived, None)
        ):
            await asyncio.sleep(0.02)
        await asyncio.sleep(self._chance.uniform(0.0, 1.0))
        if kind in ("daemon", "both"):
            await installation.kill_daemon()
        if kind in ("database", "both"):
            await installation.crash()

    async def _read_during_outage(
        self, crashed: Sequence[InstallationProcesses], new: Mapping[str, Shown]
    ) -> None:
        """All orgs together are an error; those of the other installation are there."""
        at = await self._now()
        self._moments += [
            Moment(at, org, self._shown[org], new[org]) for installation in crashed for org in installation.orgs
        ]
        await self._reports.assert_fails()
        for each in self._installations.values():
            for org in each.orgs if each not in crashed else ():
                for session in ("open", "new"):
                    _assert_old_or_new(
                        await self._figures("flow_outcome", org, session), self._shown[org], new[org]
                    )

    async def _settle(self, new: Mapping[str, Shown]) -> None:
        """Extract everything once more, and compare."""
        ended = await asyncio.gather(*(each.program.run("trigger") for each in self._installations.values()))
        assert [each.code for each in ended] == [0, 0], ended
        assert await self._states() == self._complete
        await self._compare(new)

    async def _compare(self, new: Mapping[str, Shown]) -> None:
        """The third database shows the source."""
        for org, truth in new.items():
            assert await self._figures("flow_outcome", org) == truth, org
        self._shown = new
        at = await self._now()
        self._moments += [Moment(at, org, truth, truth) for org, truth in new.items()]

    async def _states(self) -> set[tuple[object, ...]]:
        """The number of windows by org and state."""
        query = "SELECT org, state, count(*) FROM flow_outcomes.extraction_window GROUP BY org, state"
        return {tuple(row.values()) for row in await self._reports.rows(query)}

    async def _now(self) -> datetime:
        [row] = await self._reports.rows("SELECT clock_timestamp() AS at")
        at: datetime = row["at"]
        return at

    async def _figures(self, source: str, org: str, session: str = "open", *parameters: object) -> Shown:
        query = f"SELECT * FROM flow_outcomes.{source} WHERE org = %s"
        rows = await self._reports.rows(query, *parameters, org, new=session == "new")
        shown = figures({(row["flow_id"], row["bucket_start"], row["outcome_name"]): row for row in rows})
        assert len(shown) == len(rows), "a figure was there twice"
        return shown

    def _truth(self, org: str) -> Shown:
        truth = self._simulator.truth(WINDOWS[0], WINDOWS[-1] + DAY, "daily", org=org)
        return expected(truth, [(start, start + DAY) for start in WINDOWS])

    def _correct(self) -> None:
        """Correct one figure of each window."""
        for org, live in self._simulator.orgs.items():
            centre = live.settings.centre
            assert isinstance(centre, CorrectedCentre)
            truth = self._simulator.truth(WINDOWS[0], WINDOWS[-1] + DAY, "daily", org=org)
            for day in WINDOWS:
                flow, start, name = self._chance.choice(sorted(key for key in truth if key[1] == day))
                count, increase = truth[flow, start, name][0], self._chance.randint(1, 9)
                centre.correct(flow, start + DAY / 2, name, increase)
                self._restated[org, flow, start, name, count, count + increase] += 1

    async def check(self) -> None:
        """Check the figures as of each recorded instant, and the restatements."""
        interrupted = 0
        for moment in self._moments:
            shown = await self._figures("flow_outcome_as_of(%s)", moment.org, "open", moment.at)
            _assert_old_or_new(shown, moment.old, moment.new)
            interrupted += shown != moment.new
        assert interrupted, "every database was killed after its figures were stored"
        columns = ("org", "flow_id", "bucket_start", "outcome_name", "old_count", "new_count")
        rows = await self._reports.rows(f"SELECT {', '.join(columns)} FROM flow_outcomes.restatement")
        assert Counter(tuple(row.values()) for row in rows) == self._restated


def _assert_old_or_new(shown: Shown, old: Shown, new: Shown) -> None:
    """Each bucket has all of its old figures or all of its new ones."""
    buckets, before, after = map(_by_bucket, (shown, old, new))
    assert buckets.keys() == before.keys() == after.keys()
    for start, bucket in buckets.items():
        unknown = bucket.items() - before[start].items() - after[start].items()
        assert bucket in (before[start], after[start]), (start, unknown)


def _by_bucket(shown: Shown) -> dict[datetime, Shown]:
    buckets: dict[datetime, dict[tuple[str, datetime, str], tuple[int | None, float | None, float | None]]] = {}
    for key, values in shown.items():
        buckets.setdefault(key[1], {})[key] = values
    return dict(buckets)


async def _run(folder: Path, seed: int, rounds: Sequence[Mapping[str, str]]) -> None:
    async with simulated() as simulator, two_installations(folder, simulator) as (installations, reports):
        faults = InstallationFaults(simulator, installations, reports, seed)
        async with Reader(lambda: reports.server.dsn, pause=0.5) as reader:
            await faults.begin()
            for kinds in rounds:
                await faults.round(kinds)
            await faults.check()
        print(f"installations: seed {seed}, {dict(faults.fired)}, {reader.reads} reads")  # noqa: T201 - to repeat a run
        assert faults.fired == Counter(pair for kinds in rounds for pair in kinds.items())
        assert reader.reads > len(rounds)
        assert reader.partial == []
        assert simulator.in_flight_violations == 0
        for each in installations.values():
            assert each.count("window_failed") == each.count("unexpected_error") == 0
        await asyncio.gather(*(daemon.end() for each in installations.values() for daemon in each.daemons))


@pytest.mark.acceptance
async def test_figures_through_a_third_database(tmp_path: Path) -> None:
    """Exact after the loss of a daemon, and of a database and a daemon; an error meanwhile, nothing partial."""
    await _run(tmp_path, 11, [{"north": "both", "south": "daemon"}])


@pytest.mark.chaos
async def test_figures_through_a_third_database_many_times(tmp_path: Path) -> None:
    """FLOW_OUTCOMES_CHAOS_INSTALLATIONS rounds, with every kind in either installation, and in both at once."""
    chance = random.Random(SEED)  # noqa: S311 - not for cryptography
    rounds = [{"north": kind} for kind in KINDS] + [{"south": kind} for kind in KINDS]
    rounds += [dict.fromkeys(ORGS, kind) for kind in KINDS]
    chance.shuffle(rounds)
    while len(rounds) < ROUNDS:
        rounds.append({name: chance.choice(KINDS) for name in chance.sample(list(ORGS), chance.randint(1, 2))})
    await _run(tmp_path, SEED, rounds)
