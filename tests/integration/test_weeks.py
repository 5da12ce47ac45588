"""The figures behind the page's overview and a flow's view: those of the public relations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from service.web import figures_csv as files
from tests.support import sample_weeks
from tests.support.page_harness import Site, serving
from tests.support.sample_weeks import CORRECTED, NEW_NAME, OLD_NAME, RENAMED, midnight


@pytest.fixture
async def site(database: str) -> AsyncIterator[Site]:
    sample_weeks.plant(database, flows=7)
    async with serving(database, sample_weeks.config(database)) as site:
        yield site


def check_week(site: Site, document: Any) -> None:  # noqa: ANN401 - a document
    """Check each flow's sums of the week against the view."""
    stored = {
        flow: rest
        for flow, *rest in site.rows(
            "SELECT flow_id, sum(outcome_count)::bigint, sum(success_count)::bigint,"
            " sum(outcome_count) FILTER (WHERE success_count IS NOT NULL)::bigint,"
            " count(*) FILTER (WHERE outcome_count IS NULL)"
            " FROM flow_outcomes.flow_outcome WHERE org = 'acme' AND granularity = 'daily'"
            " AND bucket_start >= %s AND bucket_start < %s GROUP BY flow_id",
            midnight(7),
            midnight(0),
        )
    }
    assert {each["id"] for each in document["flows"]} == set(stored)
    for each in document["flows"]:
        total, successes, split, nulls = stored[each["id"]]
        assert (each["total"], each["nulls"]) == (total, nulls), each
        if split:
            assert each["rate"] == pytest.approx(successes / split, abs=1e-5), each


async def test_the_week_is_the_view(site: Site) -> None:
    """Totals, rates and nulls of every flow are sums of the view's rows."""
    check_week(site, await site.get("/api/overview?org=acme"))


async def test_a_rejected_figure_hides_its_name(site: Site) -> None:
    """Where one of two figures of a name is rejected, the view has null: neither counts in the overview."""
    site.rows(
        "INSERT INTO flow_outcomes.series (org, series_no, flow_id, source_key, reported_name, outcome_name,"
        " revision)"
        " VALUES ('acme', 900, 'flow-1', 'other', 'other', 'Paid', 1)"
    )
    site.rows(
        "INSERT INTO flow_outcomes.figure (org, granularity, series_no, bucket_start, bucket_end, state,"
        " extraction_timestamp, revision) VALUES ('acme', 'daily', 900, %s, %s, 'rejected', now(), 1)",
        midnight(2),
        midnight(1),
    )
    document = await site.get("/api/overview?org=acme")
    check_week(site, document)
    (flow,) = [each for each in document["flows"] if each["id"] == "flow-1"]
    assert flow["nulls"] == 1


async def test_pruned_flows_are_not_listed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow whose figures are all before the prune date goes at once, and before the figures themselves do."""
    monkeypatch.setattr("service.web.response_cache.MAX_AGE", 0)
    monkeypatch.setattr("service.web.endpoints._COST_FACTORS", {"/api/overview": 0})
    site.rows(
        "INSERT INTO flow_outcomes.series (org, series_no, flow_id, source_key, reported_name, outcome_name,"
        " revision) VALUES ('acme', 900, 'flow-old', 'Paid', 'Paid', 'Paid', 1)"
    )
    site.rows(
        "INSERT INTO flow_outcomes.figure (org, granularity, series_no, bucket_start, bucket_end, state,"
        " outcome_count, extraction_timestamp, revision)"
        " VALUES ('acme', 'daily', 900, %s, %s, 'reported', 10, now(), 1)",
        midnight(20),
        midnight(19),
    )

    async def flows() -> set[str]:
        return {each["id"] for each in (await site.get("/api/overview?org=acme"))["flows"]}

    before = await flows()
    assert "flow-old" in before
    site.rows("UPDATE flow_outcomes.org SET pruned_before = %s WHERE org = 'acme'", midnight(15))
    assert await flows() == before - {"flow-old"}


async def test_an_invalid_duration_is_unknown(site: Site) -> None:
    """A duration that was reported and is invalid is in no sum, as in the view."""
    site.rows(
        "UPDATE flow_outcomes.figure SET duration_count = -1, duration_sum_ms = NULL"
        " WHERE series_no = 5 AND bucket_start = %s",
        midnight(2),
    )
    ((mean,),) = site.rows(
        "SELECT sum(duration_sum_ms) / sum(duration_count) FROM flow_outcomes.flow_outcome"
        " WHERE flow_id = 'flow-1' AND bucket_start >= %s",
        midnight(7),
    )
    document = await site.get("/api/overview?org=acme")
    (flow,) = [each for each in document["flows"] if each["id"] == "flow-1"]
    assert flow["duration"] == round(mean)


async def test_a_null_beside_a_count_is_none(site: Site) -> None:
    """Where one of two figures of a name is expected only, the view has the other's count: nothing is null."""
    site.rows(
        "INSERT INTO flow_outcomes.series (org, series_no, flow_id, source_key, reported_name, outcome_name,"
        " revision,"
        " dimensions, group_by) VALUES ('acme', 900, 'flow-1', 'Paid', 'Paid', 'Paid', 1,"
        """ '{"mediaType": "voice"}', 'mediaType')"""
    )
    site.rows(
        "INSERT INTO flow_outcomes.figure (org, granularity, series_no, bucket_start, bucket_end, state,"
        " extraction_timestamp, revision) VALUES ('acme', 'daily', 900, %s, %s, 'expected', now(), 1)",
        midnight(2),
        midnight(1),
    )
    document = await site.get("/api/overview?org=acme")
    check_week(site, document)
    (flow,) = [each for each in document["flows"] if each["id"] == "flow-1"]
    assert flow["nulls"] == 0


async def test_other_measures_are_not_outcomes(site: Site) -> None:
    """Executions of a flow are in no sum of its outcomes."""
    site.rows(
        "INSERT INTO flow_outcomes.series (org, series_no, flow_id, source_key, reported_name, outcome_name,"
        " revision,"
        " measure) VALUES ('acme', 900, 'flow-1', 'nFlow', 'nFlow', 'nFlow', 1, 'executions')"
    )
    site.rows(
        "INSERT INTO flow_outcomes.figure (org, granularity, series_no, bucket_start, bucket_end, state, measure,"
        " outcome_count, extraction_timestamp, revision)"
        " VALUES ('acme', 'daily', 900, %s, %s, 'reported', 'executions', 5000, now(), 1)",
        midnight(2),
        midnight(1),
    )
    check_week(site, await site.get("/api/overview?org=acme"))
    assert len((await site.get("/api/flow?org=acme&flow=flow-1"))["series"]) == 4


async def test_a_day_that_is_missing_is_not_compared(site: Site) -> None:
    """A day without a complete scan is named, and its weekday is left out of both weeks."""
    site.rows("DELETE FROM flow_outcomes.bucket_coverage WHERE bucket_start = %s", midnight(3))
    site.rows("DELETE FROM flow_outcomes.figure WHERE bucket_start = %s", midnight(3))
    document = await site.get("/api/overview?org=acme&measure=count")
    assert document["missing"] == [f"{midnight(3):%Y-%m-%d}"]
    assert document["compared"] == 6
    for each in document["flows"]:
        ((now, before),) = site.rows(
            "SELECT sum(outcome_count) FILTER (WHERE bucket_start >= %s),"
            " sum(outcome_count) FILTER (WHERE bucket_start < %s AND bucket_start <> %s)"
            " FROM flow_outcomes.flow_outcome WHERE flow_id = %s AND bucket_start >= %s",
            *(midnight(7), midnight(7), midnight(10), each["id"], midnight(14)),
        )
        assert (each["now"], each["before"]) == (now, before)


async def test_what_was_restated_today_is_on_the_last_day(site: Site) -> None:
    """The figures restated on each of the last 28 days, today's included."""
    site.rows(
        "UPDATE flow_outcomes.revision r SET stamped_at = now() FROM flow_outcomes.restated s"
        " WHERE s.org = r.org AND s.revision = r.revision"
    )
    [(figures,)] = site.rows("SELECT count(*) FROM flow_outcomes.restated WHERE granularity = 'daily'")
    assert figures
    assert (await site.get("/api/overview?org=acme"))["restated"]["days"] == [0] * 27 + [figures]


async def test_the_largest_outcomes(site: Site) -> None:
    """The share of each flow's largest outcomes is their count over the flow's, this week and the week before."""
    document = await site.get("/api/overview?org=acme&measure=share")
    for each in document["flows"]:
        stored = site.rows(
            "SELECT outcome_name, sum(outcome_count) FROM flow_outcomes.flow_outcome"
            " WHERE flow_id = %s AND bucket_start >= %s GROUP BY 1 ORDER BY 2 DESC NULLS LAST LIMIT 3",
            each["id"],
            midnight(7),
        )
        assert [share[0] for share in each["shares"]] == [name for name, _ in stored]
        if each["total"]:
            assert each["shares"][0][1] == pytest.approx(float(stored[0][1]) / each["total"], abs=1e-5)


async def test_an_unchanged_org_is_not_read_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The overview is read from the figures again only after the org's next revision."""
    reads = 0
    document = sample_weeks_document()

    async def counted(*arguments: Any) -> Any:  # noqa: ANN401 - of the real function
        nonlocal reads
        reads += 1
        return await document(*arguments)

    monkeypatch.setattr("service.web.kept_weeks.week.document", counted)
    monkeypatch.setattr("service.web.response_cache.MAX_AGE", 0.0)
    monkeypatch.setattr("service.web.endpoints._COST_FACTORS", {"/api/overview": 0.0})
    for _ in range(3):
        await site.get("/api/overview?org=acme")
    assert reads == 1
    site.rows("UPDATE flow_outcomes.org SET revision = revision + 1")
    await site.get("/api/overview?org=acme")
    assert reads == 2


def sample_weeks_document() -> Any:  # noqa: ANN401 - a coroutine function
    from service.web import week  # noqa: PLC0415 - before it is replaced

    return week.document


@pytest.mark.parametrize("back", [0, 3, 8, 20])
async def test_as_of_is_the_function(site: Site, back: int) -> None:
    """Figures as of an instant are those of ``flow_outcome_as_of``, to the revision."""
    ((at,),) = site.rows(
        "SELECT stamped_at FROM flow_outcomes.revision ORDER BY revision DESC LIMIT 1 OFFSET %s", back
    )
    instant = quote(at.astimezone(UTC).isoformat())
    document = await site.get(f"/api/flow?org=acme&flow={RENAMED}&at={instant}")
    shown = {
        (start, each["name"]): count
        for each in document["series"]
        for start, count in zip(document["starts"], each["counted"], strict=True)
        if count is not None
    }
    stored = site.rows(
        "SELECT extract(epoch FROM bucket_start)::bigint, outcome_name, outcome_count"
        " FROM flow_outcomes.flow_outcome_as_of(%s) WHERE flow_id = %s AND outcome_count IS NOT NULL",
        at,
        RENAMED,
    )
    first = min(document["starts"])
    assert shown == {(start, name): count for start, name, count in stored if start >= first}
    assert ((OLD_NAME if back >= 5 else NEW_NAME) in {name for _, name in shown}) or back == 0


async def test_differences_have_reasons(site: Site) -> None:
    """What a correction, an alias and a later extraction changed is told apart."""
    ((at,),) = site.rows("SELECT stamped_at FROM flow_outcomes.revision ORDER BY revision DESC LIMIT 1 OFFSET 5")
    instant = quote(at.astimezone(UTC).isoformat())
    document = await site.get(f"/api/differences?org=acme&flow={CORRECTED}&at={instant}")
    kinds = [tuple(why["kind"] for why in cell["why"]) for cell in document["cells"]]
    assert set(kinds) == {("restated",), ("extracted",)}
    assert kinds.count(("restated",)) == 2
    document = await site.get(f"/api/differences?org=acme&flow={RENAMED}&at={instant}")
    assert [(each["old_name"], each["new_name"], each["by_alias"]) for each in document["renamed"]] == [
        (OLD_NAME, NEW_NAME, True)
    ]
    moved = [cell for cell in document["cells"] if cell["outcome"] == OLD_NAME]
    assert moved
    assert all(cell["is"] is None and cell["why"][0]["kind"] == "alias" for cell in moved)
    same = await site.get(f"/api/differences?org=acme&flow={CORRECTED}&at={instant}&with={instant}")
    assert same["cells"] == []


async def test_instants(site: Site) -> None:
    """Each instant at which a figure of the flow was written, restated or renamed, in order."""
    document = await site.get(f"/api/instants?org=acme&flow={CORRECTED}")
    instants = [datetime.fromisoformat(each["at"]) for each in document["instants"]]
    assert instants == sorted(set(instants))
    assert sum(each["restated"] for each in document["instants"]) == 2
    renamed = await site.get(f"/api/instants?org=acme&flow={RENAMED}")
    assert sum(each["renamed"] for each in renamed["instants"]) == 1


async def test_dimensions(site: Site) -> None:
    """A flow that is grouped can be shown by each dimension; its values add up to the flow."""
    for number, medium in ((900, "voice"), (901, "chat")):
        site.rows(
            "INSERT INTO flow_outcomes.series (org, series_no, flow_id, source_key, reported_name, outcome_name,"
            " revision, dimensions, group_by) VALUES ('acme', %s, 'flow-9', 'Paid', 'Paid', 'Paid', 1,"
            " jsonb_build_object('mediaType', %s::text), 'mediaType')",
            number,
            medium,
        )
        site.rows(
            "INSERT INTO flow_outcomes.figure (org, granularity, series_no, bucket_start, bucket_end, state,"
            " outcome_count, extraction_timestamp, revision) VALUES ('acme', 'daily', %s, %s, %s, 'reported', %s,"
            " now(), 1)",
            *(number, midnight(2), midnight(1), number),
        )
    document = await site.get("/api/flow?org=acme&flow=flow-9")
    assert document["dimensions"] == ["mediaType"]
    assert [max(filter(None, each["counted"])) for each in document["series"]] == [1801]
    document = await site.get("/api/flow?org=acme&flow=flow-9&split=mediaType")
    assert {each["name"]: max(filter(None, each["counted"])) for each in document["series"]} == {
        "voice": 900,
        "chat": 901,
    }


async def test_a_file_of_every_flow(site: Site) -> None:
    """Without a flow the file has the whole org; as of an instant it has the figures of then."""
    span = f"from={midnight(5):%Y-%m-%d}&to={midnight(0):%Y-%m-%d}"
    rows = await site.file(f"/api/figures.csv?org=acme&{span}")
    stored = site.rows(
        "SELECT flow_id, outcome_name, outcome_count FROM flow_outcomes.flow_outcome WHERE bucket_start >= %s"
        " ORDER BY flow_id, bucket_start, outcome_name",
        midnight(5),
    )
    shown = [(row["flow_id"], row["outcome_name"], row["outcome_count"]) for row in rows]
    assert shown == [(flow, name, "" if count is None else str(count)) for flow, name, count in stored]
    past = await site.file(f"/api/figures.csv?org=acme&{span}&at={quote((midnight(3)).isoformat())}")
    assert len(past) < len(rows)
    names = {row["outcome_name"] for row in await site.file(f"/api/figures.csv?org=acme&{span}&formulas=escaped")}
    assert all(not name.startswith("=") for name in names)


async def test_a_file_that_is_not_requested(site: Site) -> None:
    """The response to HEAD has the headers alone: a body would be read as the next response."""
    head = b"HEAD /api/figures.csv?org=acme HTTP/1.1\r\nHost: localhost\r\n\r\n"
    response = await site.exchange(head + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    first, second, body = response.split(b"\r\n\r\n")
    assert b"Content-Type: text/csv" in first
    assert second.startswith(b"HTTP/1.1 200 OK")
    assert body == b"alive\n"


async def test_too_many_files(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file beyond those that may be sent at the same time gets 503 at once."""
    monkeypatch.setattr(files, "MAX_CONNECTIONS", 0)
    status, document, headers = await site.response("/api/figures.csv?org=acme")
    assert (status, headers["Retry-After"]) == (503, "3")
    assert "try again" in document["error"]


async def test_no_daily_figures(database: str) -> None:
    """An org without figures has an overview without days, also where another has some."""
    async with serving(database, sample_weeks.config(database)) as site:
        document = await site.get("/api/overview?org=acme")
        assert (document["days"], document["flows"]) == ([], [])


async def test_hours_are_added_to_days(site: Site) -> None:
    """An org that is extracted by the hour alone has the same overview, of its local days."""
    for table in ("figure", "bucket_coverage"):
        site.rows(f"DELETE FROM flow_outcomes.{table}")
    site.rows(
        "INSERT INTO flow_outcomes.bucket_coverage (org, granularity, bucket_start, bucket_end, scope,"
        " absence_conclusive, expect_for) SELECT 'acme', 'hourly', h, h + interval '1 hour', '*', true, 'P31D'"
        " FROM generate_series(%s::timestamptz, %s::timestamptz - interval '1 hour', '1 hour') h",
        midnight(14),
        midnight(0),
    )
    site.rows(
        "INSERT INTO flow_outcomes.figure (org, granularity, series_no, bucket_start, bucket_end, state,"
        " outcome_count, extraction_timestamp, revision) SELECT 'acme', 'hourly', 5, h, h + interval '1 hour',"
        " 'reported', 2, now(), 1"
        " FROM generate_series(%s::timestamptz, %s::timestamptz - interval '1 hour', '1 hour') h",
        midnight(14),
        midnight(0),
    )
    document = await site.get("/api/overview?org=acme&measure=count")
    hours = (midnight(0) - midnight(7)) / timedelta(hours=1)
    assert document["granularity"] == "hourly"
    assert [each["total"] for each in document["flows"]] == [2 * hours]
