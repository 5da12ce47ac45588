"""Memory does not grow with the pages of a window."""

from __future__ import annotations

import os
from datetime import date, timedelta

from service.simulator import Centre, Flow, RecordRun, SimulatedOrg, Simulator, SimulatorConfig
from tests.support.program import Program

# FLOW_OUTCOMES_TEST_ROWS=500000 is the long form
ROWS = int(os.environ.get("FLOW_OUTCOMES_TEST_ROWS", "100000"))
MIB = 2**20
FLOWS = 1000
FIGURES = [(name, name, 10 * number) for number, name in enumerate(("A", "Bé", "C c", "D", "E"))]


class FlatCentre:
    """A centre in which every flow reports the same each day, without delay."""

    def __init__(self) -> None:
        self._flows = [Flow(f"6f1c8a52-3f0e-4f5b-9d3a-{number:012d}", str(number)) for number in range(FLOWS)]

    def flows(self) -> list[Flow]:
        """Return every flow."""
        return self._flows

    def outcomes(self, at: int) -> list[Flow]:  # noqa: ARG002
        """Return every outcome."""
        return [Flow(name, name) for name, _, _ in FIGURES]

    def count_outcomes(self, flow_id: str, start: int, end: int, at: int) -> list[tuple[str, str, int]]:  # noqa: ARG002
        """Return the same counts for every interval."""
        return FIGURES

    def record_runs(self, flow_id: str, start: int, end: int, at: int) -> list[RecordRun]:  # noqa: ARG002
        """Return no records: their traits are not requested."""
        return []

    def snapshot(self) -> Centre:
        """Return itself."""
        return self

    def is_final(self, end: int, at: int) -> bool:  # noqa: ARG002
        """Return False, so that no page is cached in the test's memory."""
        return False


async def test_memory_is_flat(program: Program) -> None:
    """A window of 100,000 rows needs at most 40 MiB more than one of 5,000."""
    orgs = {"acme": SimulatedOrg(centre=FlatCentre(), requests_per_second=None)}
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        program.configure(simulator, orgs={"acme": {"page_size": 1000, "requests_per_second": 1000}})
        peaks = []
        for first, rows in ((date(2024, 1, 1), FLOWS * 5), (date(2024, 3, 1), ROWS)):
            past = first + timedelta(days=rows // (FLOWS * 5))
            span = ("--from", first.isoformat(), "--to", past.isoformat(), "--granularity", "daily")
            ended = await program.run("backfill", "--org", "acme", *span)
            assert ended.code == 0, ended.failures()
            peaks.append(ended.peak)
    assert [each["rows"] for each in program.windows()] == [FLOWS * 5, ROWS]
    assert peaks[1] < 150 * MIB
    assert peaks[1] < peaks[0] + 40 * MIB, [peak // MIB for peak in peaks]
