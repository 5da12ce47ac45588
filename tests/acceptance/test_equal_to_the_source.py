"""The stored rows equal the source, for every calendar and every way of paging."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from service.simulator import (
    Fault,
    Faults,
    GeneratedCentre,
    SimulatedOrg,
    Simulator,
    SimulatorConfig,
    StaticCentre,
    TimeGroup,
)
from tests.support.program import Program, expected, figures


def midnight(day: date, zone: str) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).astimezone(UTC)


def split_buckets(first: date, past: date, zone: str, granularity: TimeGroup) -> list[tuple[datetime, datetime]]:
    """Return the buckets from one local date to another."""
    if granularity == "daily":
        count = (past - first).days
        edges = [midnight(first + timedelta(days=number), zone) for number in range(count + 1)]
    else:
        start, end = midnight(first, zone), midnight(past, zone)
        edges = [start + timedelta(hours=number) for number in range((end - start) // timedelta(hours=1) + 1)]
    return list(pairwise(edges))


NEW_YORK, KOLKATA = "America/New_York", "Asia/Kolkata"
CENTRE = GeneratedCentre(seed=11, flows=8)
FLOWS = [flow.id for flow in CENTRE.flows()]

LETTERS = [
    *(" lead", "trail ", "tab\t", "new\nline", "\u0001", "\ufeffBOM", "\\N", "NULL", "'; DROP TABLE x; --", "{}"),
    *(
        '"',
        "%s",
        "é" * 256,
        "👩\u200d👩\u200d👧",
        "\U0010ffff",
        "\x7f",
        "\u2028",
        "\u202eabc",
        " ",
        "\\",
        "a\\u0000b",
    ),
]
NOON = datetime(2024, 5, 6, 12, tzinfo=UTC)
UNUSUAL_NAMES = StaticCentre(
    {
        ("f_1", NOON): dict(zip(LETTERS, range(len(LETTERS)), strict=True)),
        ("F_1", NOON): {LETTERS[0]: 5},
        ("f 1/ü", NOON): {"A": 0, "B": 0},
        ("f_1_x", NOON): {"as large": 2**63 - 1, "as can be": 2**63 - 1},
    }
)
OPEN = SimulatedOrg(requests_per_second=None)
ORGS = {
    "acme": replace(OPEN, flows=60, outcomes=12),
    "spring": replace(OPEN, timezone=NEW_YORK),
    "autumn": replace(OPEN, timezone=NEW_YORK),
    "spring_hours": replace(OPEN, timezone=NEW_YORK, flows=6),
    "kolkata": replace(OPEN, timezone=KOLKATA, flows=5),
    "apart": replace(OPEN, order="bucket", split_entries=True, percent_of="query"),
    "beside": replace(OPEN, faults=Faults(flow_beside=Fault(), extra_fields=Fault())),
    "dates": replace(OPEN, faults=Faults(dates_apart=Fault(), empty_page=Fault(page=2))),
    "twice": replace(OPEN, faults=Faults(duplicate_equal=Fault())),
    "listed": replace(OPEN, centre=CENTRE, cardinality=9),
    "narrow": replace(OPEN, centre=CENTRE, cardinality=30),
    "letters": replace(OPEN, centre=UNUSUAL_NAMES),
    "bare_flow": replace(OPEN, centre=CENTRE, faults=Faults(bare=Fault())),
}
SPANS: dict[str, tuple[date, date, TimeGroup]] = {
    name: (date(2024, 5, 6), date(2024, 5, 16), "daily") for name in ORGS
} | {
    "spring": (date(2024, 3, 7), date(2024, 3, 14), "daily"),
    "autumn": (date(2024, 10, 31), date(2024, 11, 6), "daily"),
    "spring_hours": (date(2024, 3, 9), date(2024, 3, 12), "hourly"),
    "kolkata": (date(2024, 5, 6), date(2024, 5, 8), "hourly"),
    "letters": (date(2024, 5, 6), date(2024, 5, 7), "daily"),
    "bare_flow": (date(2024, 5, 6), date(2024, 5, 7), "daily"),
}


async def test_every_row_equals_the_source(program: Program) -> None:
    """Many flows, days of 23 and 25 hours, half-hour offsets and split entries: all rows equal the source."""
    async with Simulator(SimulatorConfig(orgs=ORGS)) as simulator:
        program.configure(
            simulator,
            orgs={
                name: {
                    "timezone": org.timezone,
                    "page_size": 25,
                    "flows": {"listed": FLOWS[:7], "bare_flow": FLOWS[:1]}.get(name, []),
                }
                for name, org in ORGS.items()
            },
            ad_hoc={
                name: {"org": name, "from": first, "to": past, "granularity": granularity}
                for name, (first, past, granularity) in SPANS.items()
            },
        )
        ended = await program.run("run", "--once")
        assert (ended.code, ended.err) == (0, ""), ended.failures()
        for fault, org in [
            ("flow_beside", "beside"),
            ("extra_fields", "beside"),
            ("dates_apart", "dates"),
            ("empty_page", "dates"),
            ("duplicate_equal", "twice"),
            ("bare", "bare_flow"),
        ]:
            assert simulator.orgs[org].fired[fault], fault
        for name, (first, past, granularity) in SPANS.items():
            zone = ORGS[name].timezone
            buckets = split_buckets(first, past, zone, granularity)
            flows = {"listed": FLOWS[:7], "bare_flow": FLOWS[:1]}.get(name)
            truth = simulator.truth(buckets[0][0], buckets[-1][1], granularity, flows=flows, org=name)
            stored = program.stored(name, granularity)
            assert figures(stored) == expected(truth, buckets), name
            ends = dict(buckets)
            assert all(row["bucket_end"] == ends[row["bucket_start"]] for row in stored.values()), name
            assert all(row["outcome_key"] == f"{flow}_{outcome}" for (flow, _, outcome), row in stored.items())
        assert simulator.in_flight_violations == 0
    rows = program.stored("acme", "daily")
    assert len(rows) > 60 * 10 * 8
    names = {name for _, _, name in rows}
    assert {"Café", "Cafe\u0301"} <= names
    assert len({flow for flow, _, name in rows if name == "TransferredToQueue"}) == 60
    (window,) = program.windows("acme")
    assert (window["state"], window["pages"], window["rejected"], window["last_error"]) == (
        "complete",
        24,
        0,
        None,
    )
    assert window["rows"] == sum(row["outcome_count"] is not None for row in rows.values())
    assert _hours(program, "spring") == {23, 24}
    assert _hours(program, "autumn") == {24, 25}
    assert [line["org"] for line in ended.find_events("percentage_mismatch")] == []


def _hours(program: Program, org: str) -> set[float]:
    return {
        (row["bucket_end"] - row["bucket_start"]) / timedelta(hours=1)
        for row in program.stored(org, "daily").values()
    }
