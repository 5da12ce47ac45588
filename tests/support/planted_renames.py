"""Renames, ends and begins of outcomes, planted in generated orgs, and what is suggested of them.

Each seed is an org of the simulator's generated centre. In each of its flows, with these probabilities: an
outcome is renamed (0.4), one ends (0.3), one begins (0.3), each at a random minute. The kinds differ in what else
is there:

    daily      daily figures of 10 weeks
    short      of 14 days; each change is four to ten days old; ends and begins with 0.06, for fewer days
    hourly     hourly figures
    monthly    monthly figures of 18 months
    low        a fiftieth of the counts
    campaigns  the centre's own: a date in the name, renamed in a third of the flows, absent for weeks in another
    twice      two renames in one flow on one day
    same day   no rename; one outcome ends and one begins at the same minute
    overlap    no rename; an outcome begins a week before another ends

A suggestion is correct if it names a rename that was planted. Campaigns that follow each other count as renames.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import NamedTuple

import psycopg

from service.plan.calendar import Step, until
from service.simulator.centre import GeneratedCentre
from service.simulator.instants import DAY, MINUTE, to_milliseconds

END = datetime(2026, 9, 1, tzinfo=UTC)
KINDS = ("daily", "short", "hourly", "monthly", "low", "campaigns", "twice", "same day", "overlap")
FLOWS = 6
PLAIN = 4
"""Outcomes of a flow without a campaign."""
LATER = 1 << 60
GRANULARITY = {Step.HOUR: "hourly", Step.DAY: "daily", Step.MONTH: "monthly"}
RENAMED, CHANGED, CHANGED_SHORT = 0.4, 0.3, 0.06


class Pair(NamedTuple):
    """A flow's old and new name."""

    flow: str
    old: str
    new: str


@dataclass
class Change:
    """What happens to one outcome of a flow at an instant; the instants are milliseconds since 1970."""

    begins: int = 0
    ends: int = LATER
    renamed: int = LATER
    new_name: str = ""


@dataclass
class Planted:
    """A kind's figures, as rows, and its renames."""

    rows: list[tuple[str, str, str, datetime, datetime, int]] = field(default_factory=list)
    renames: set[Pair] = field(default_factory=set)


class Result(NamedTuple):
    """What was planted, found and suggested wrongly."""

    planted: int
    found: int
    wrong: list[tuple[Pair, float]]
    missed: list[Pair]
    confidences: list[tuple[float, bool]]


def plan_changes(kind: str, random: Random, start: int, end: int) -> dict[int, Change]:
    """Choose what happens in a flow, by the outcome's place."""
    margin = {"monthly": 95 * DAY, "short": 4 * DAY}.get(kind, 6 * DAY)
    places = random.sample(range(PLAIN), PLAIN)

    def instant() -> int:
        return random.randrange(start + margin, end - margin) // MINUTE * MINUTE

    if kind == "campaigns":
        return {}
    if kind == "twice":
        at = instant()
        return {place: Change(renamed=at, new_name=f"new {place}") for place in places[:2]}
    if kind in ("same day", "overlap"):
        at = instant()
        lead = 7 * DAY if kind == "overlap" else 0
        return {places[0]: Change(ends=at), places[1]: Change(begins=at - lead)}
    changes = {}
    if random.random() < RENAMED:
        changes[places[0]] = Change(renamed=instant(), new_name=f"new {places[0]}")
    other = CHANGED_SHORT if kind == "short" else CHANGED
    if random.random() < other:
        changes[places[1]] = Change(ends=instant())
    if random.random() < other:
        changes[places[2]] = Change(begins=instant())
    return changes


def counts(
    centre: GeneratedCentre,
    flow: str,
    changes: dict[int, Change],
    names: list[str],
    span: tuple[int, int],
    *,
    campaigns: bool,
) -> Iterator[tuple[str, int]]:
    """The counts of a span by name, with the changes."""
    places = {name: place for place, name in enumerate(names)}
    instants = {at for change in changes.values() for at in (change.begins, change.ends, change.renamed)}
    cuts = [span[0], *sorted(at for at in instants if span[0] < at < span[1]), span[1]]
    for first, after in pairwise(cuts):
        for _, name, count in centre.count_outcomes(flow, first, after, LATER):
            if name not in places and not campaigns:
                continue
            change = changes.get(places.get(name, -1), Change())
            if change.begins <= first < change.ends:
                yield (change.new_name if first >= change.renamed else name), count


def plant(kind: str, seed: int) -> Planted:
    """Generate an org."""
    random = Random(f"{kind} {seed}")  # noqa: S311 - generated data
    days = {"monthly": 550, "short": 14, "hourly": 42, "campaigns": 200}.get(kind, 70)
    step = {"monthly": Step.MONTH, "hourly": Step.HOUR}.get(kind, Step.DAY)
    begin = END - timedelta(days=days)
    edges = until(begin.replace(day=1) if kind == "monthly" else begin, END, step, "UTC")
    start, end = to_milliseconds(edges[0]), to_milliseconds(edges[-1])
    centre = GeneratedCentre(seed, FLOWS, PLAIN + 1)  # the last outcome is the campaign
    planted = Planted()
    divisor = 50 if kind == "low" else 1
    for model in centre._models:
        flow = model.flow.id
        names = [outcome.name for outcome in model.outcomes[:PLAIN]]
        campaign = model.outcomes[-1].campaign if kind == "campaigns" else None
        changes = plan_changes(kind, random, start, end)
        planted.renames |= {Pair(flow, names[p], c.new_name) for p, c in changes.items() if c.new_name}
        if campaign is not None:
            rounds = campaign.segments(start, end)
            planted.renames |= {
                Pair(flow, one[2], other[2])
                for one, other in pairwise(rounds)
                if one[1] == other[0] and one[1] - max(start, one[0]) >= 4 * DAY and end - other[0] >= 4 * DAY
            }
        for low, high in pairwise(edges):
            found: Counter[str] = Counter()
            span = (to_milliseconds(low), to_milliseconds(high))
            for name, count in counts(centre, flow, changes, names, span, campaigns=kind == "campaigns"):
                found[name] += sum(random.random() * divisor < 1 for _ in range(count)) if divisor > 1 else count
            planted.rows += [(flow, name, GRANULARITY[step], low, high, count) for name, count in found.items()]
    return planted


_STORE = """
    SELECT flow_outcomes.ensure_partitions(min(first), max(after)) FROM planted;
    INSERT INTO flow_outcomes.org (org) SELECT DISTINCT org FROM planted;
    INSERT INTO flow_outcomes.series (org, flow_id, source_key, reported_name, outcome_name, revision)
    SELECT DISTINCT org, flow_id, name, name, name, 1 FROM planted;
    INSERT INTO flow_outcomes.figure (org, granularity, series_no, bucket_start, bucket_end, state, outcome_count,
                                      extraction_timestamp, revision)
    SELECT p.org, p.granularity, o.series_no, p.first, p.after, 'reported', p.count, now(), 1
    FROM planted p
    JOIN flow_outcomes.series o ON o.org = p.org AND o.flow_id = p.flow_id AND o.source_key = p.name;
    INSERT INTO flow_outcomes.bucket_coverage (org, granularity, bucket_start, bucket_end, scope,
                                               absence_conclusive, expect_for)
    SELECT DISTINCT org, granularity, first, after, '*', true, interval '31 days' FROM planted
"""


def store(dsn: str, orgs: dict[str, Planted]) -> None:
    """Store what was planted, as merges would."""
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "CREATE TEMPORARY TABLE planted (org text, flow_id text, name text, granularity text,"
            " first timestamptz, after timestamptz, count bigint)"
        )
        with connection.cursor() as cursor, cursor.copy("COPY planted FROM STDIN") as copy:
            for org, planted in orgs.items():
                for row in planted.rows:
                    copy.write_row((org, *row))
        connection.execute(_STORE)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


def evaluate(dsn: str, orgs: dict[str, Planted]) -> Result:
    """Compare the suggestions with what was planted."""
    planted = found = 0
    wrong, missed, confidences = [], [], []
    with psycopg.connect(dsn) as connection:
        for org, each in orgs.items():
            rows = connection.execute(
                "SELECT flow_id, old_name, new_name, confidence"
                " FROM flow_outcomes.alias_suggestion_since(%s, NULL, '-infinity')",
                [org],
            ).fetchall()
            suggested = {Pair(*row[:3]): row[3] for row in rows}
            planted += len(each.renames)
            found += len(each.renames & suggested.keys())
            wrong += [(pair, suggested[pair]) for pair in suggested.keys() - each.renames]
            missed += list(each.renames - suggested.keys())
            confidences += [(confidence, pair in each.renames) for pair, confidence in suggested.items()]
    return Result(planted, found, wrong, missed, confidences)
