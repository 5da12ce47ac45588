"""A flow's view in a browser: its figures, its past, and what differs."""

from __future__ import annotations

import csv
import io
from datetime import datetime
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from tests.browser.conftest import Open, Site, rows, violations
from tests.support.sample_weeks import CORRECTED, HOSTILE, LATE, MARKUP, NEW_NAME, OLD_NAME, RENAMED, midnight

SUMS = (
    "SELECT outcome_name, to_char(sum(outcome_count), 'FM999,999,999') FROM {}"
    " WHERE org = 'acme' AND granularity = 'daily' AND flow_id = %s AND bucket_start >= %s GROUP BY 1"
)
PRESENT = "flow_outcomes.flow_outcome"


def instant(site: Site, revision_back: int) -> datetime:
    """Return the timestamp of one of the last revisions."""
    ((at,),) = site.rows(
        "SELECT stamped_at FROM flow_outcomes.revision ORDER BY revision DESC LIMIT 1 OFFSET %s", revision_back
    )
    assert isinstance(at, datetime)
    return at


def in_url(at: datetime) -> str:
    return quote(at.isoformat().replace("+00:00", "Z"))


def test_sums_and_charts(view: Open, weeks: Site) -> None:
    """Each outcome has a chart and a row; its sum is the database's."""
    page = view(weeks, f"flow?flow={RENAMED}&days=30")
    first = page.locator("main").evaluate("() => new Date().toISOString().slice(0, 10)")
    assert first
    shown = {row[0]: row[1] for row in rows(page, "#sums")}
    assert shown == dict(weeks.rows(SUMS.format(PRESENT), RENAMED, midnight(29)))
    assert page.locator(".multi svg").count() == 4
    assert page.locator("#total canvas").count() == 1


def test_every_figure(view: Open, weeks: Site) -> None:
    """The table of all figures has each bucket's counts; a null is shown as null."""
    page = view(weeks, "flow?flow=flow-6&days=30")
    page.click("#figures summary")
    page.wait_for_selector("#figures tbody tr")
    cells = [cell for row in rows(page, "#figures") for cell in row[1:]]
    stored = weeks.rows(
        "SELECT outcome_count FROM flow_outcomes.flow_outcome WHERE flow_id = 'flow-6' AND bucket_start >= %s",
        midnight(29),
    )
    assert cells.count("null") == sum(count is None for (count,) in stored) == 12
    numbers = sorted(int(cell.split(" ")[0].replace(",", "")) for cell in cells if cell and cell != "null")
    assert numbers == sorted(count for (count,) in stored if count is not None)


def test_csv_is_the_database(view: Open, weeks: Site) -> None:
    """The file has every row and column of the view; a formula is text, the rest to the letter."""
    page = view(weeks, f"flow?flow={RENAMED}&days=30")
    with page.expect_download() as download:
        page.click("#csv")
    text = download.value.path().read_text(encoding="utf-8")
    shown = list(csv.DictReader(io.StringIO(text)))
    stored = weeks.rows(
        "SELECT bucket_start, outcome_name, outcome_count, success_count, duration_sum_ms"
        " FROM flow_outcomes.flow_outcome WHERE flow_id = %s AND bucket_start >= %s"
        " ORDER BY bucket_start, outcome_name",
        RENAMED,
        midnight(29),
    )
    wanted = [
        (start, f"'{name}" if name.startswith("=") else name, str(count), str(success), str(duration))
        for start, name, count, success, duration in stored
    ]
    columns = ("outcome_name", "outcome_count", "success_count", "duration_sum_ms")
    assert [
        (datetime.fromisoformat(row["bucket_start"]), *(row[each] for each in columns)) for row in shown
    ] == wanted
    href = page.evaluate("() => document.querySelector('#csv').href")
    with urlopen(href.replace("escaped", "kept")) as plain:  # noqa: S310 - of this test's server
        assert '"=HYPERLINK(""x"")"' in plain.read().decode()


def test_as_of(view: Open, weeks: Site) -> None:
    """At an instant the sums are those of ``flow_outcome_as_of``, with the name of then."""
    at = instant(weeks, 8)
    page = view(weeks, f"flow?flow={RENAMED}&days=30&at={in_url(at)}")
    shown = {row[0]: row[1] for row in rows(page, "#sums")}
    source = f"flow_outcomes.flow_outcome_as_of('{at.isoformat()}')"
    assert shown == dict(weeks.rows(SUMS.format(source), RENAMED, midnight(29)))
    assert OLD_NAME in shown
    assert NEW_NAME not in shown
    assert "as they were on" in page.inner_text("main")
    page.click("#now")
    page.wait_for_selector(f"#sums th:has-text('{NEW_NAME}')")
    assert "at=" not in page.url
    page.go_back()
    page.wait_for_selector(f"#sums th:has-text('{OLD_NAME}')")


def test_the_slider_moves_through_the_instants(view: Open, weeks: Site) -> None:
    """The slider has a place for each instant at which a figure of the flow changed, and now."""
    page = view(weeks, f"flow?flow={CORRECTED}&days=30")
    slider = page.locator("#as-of")
    ((count,),) = weeks.rows(
        "SELECT count(DISTINCT revision) FROM (SELECT revision, series_no, bucket_start FROM flow_outcomes.figure"
        " UNION ALL SELECT revision, series_no, bucket_start FROM flow_outcomes.figure_history) f"
        " WHERE series_no BETWEEN 9 AND 12 AND bucket_start >= %s",
        midnight(29),
    )
    assert slider.get_attribute("max") == str(count)
    slider.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("() => location.search.includes('at=')")
    page.wait_for_selector("p:has-text('as they were on')")


def test_compare_is_the_diff(view: Open, weeks: Site) -> None:
    """The list has exactly the figures whose counts differ, each with its reason."""
    at = instant(weeks, 5)
    page = view(weeks, f"flow?flow={CORRECTED}&days=30&at={in_url(at)}&vs=now")
    page.wait_for_selector("h2#differences")
    shown = {(row[1], row[2], row[3]) for row in rows(page, "[aria-label=Differences]")}
    source = f"flow_outcomes.flow_outcome_as_of('{at.isoformat()}')"
    stored = weeks.rows(
        "SELECT outcome_name, was.outcome_count, present.outcome_count FROM"
        f" (SELECT * FROM {source} WHERE flow_id = %s AND bucket_start >= %s) was FULL JOIN"
        " (SELECT * FROM flow_outcomes.flow_outcome WHERE flow_id = %s AND bucket_start >= %s) present"
        " USING (org, flow_id, granularity, bucket_start, outcome_name)"
        " WHERE was.outcome_count IS DISTINCT FROM present.outcome_count",
        *(CORRECTED, midnight(29)) * 2,
    )
    plain = [(name, *("-" if count is None else f"{count:,}" for count in counts)) for name, *counts in stored]
    assert {tuple(cell.replace("\N{EN DASH}", "-") for cell in row) for row in shown} == set(plain)
    assert f"{len(stored)} figures" in page.inner_text("#differences")
    reasons = page.locator("td.why").all_inner_texts()
    assert sum("restated" in each for each in reasons) == 2
    assert sum("extracted later" in each for each in reasons) == len(stored) - 2


def test_an_alias_is_one_line(view: Open, weeks: Site) -> None:
    """Figures that moved to another name are one line with the reason, not two for each day."""
    at = instant(weeks, 5)
    page = view(weeks, f"flow?flow={RENAMED}&days=30&at={in_url(at)}&vs=now")
    page.wait_for_selector("tr[data-moved]")
    moved = page.locator("tr[data-moved]")
    assert moved.count() == 1
    text = moved.inner_text()
    assert OLD_NAME in text
    assert NEW_NAME in text
    assert "alias, " in text


def test_a_day_that_came_late(view: Open, weeks: Site) -> None:
    """A figure whose day was extracted only after the first instant says so."""
    at = instant(weeks, 4)
    page = view(weeks, f"flow?flow={LATE}&days=30&at={in_url(at)}&vs=now")
    page.wait_for_selector("h2#differences")
    late = [row for row in rows(page, "[aria-label=Differences]") if row[4].startswith("extracted later")]
    assert len(late) >= 4


def test_compare_by_key(view: Open, weeks: Site) -> None:
    """``c`` compares with the last instant before now, and again ends it."""
    page = view(weeks, f"flow?flow={CORRECTED}&days=30")
    page.keyboard.press("c")
    page.wait_for_selector("h2#differences")
    assert "vs=now" in page.url
    page.keyboard.press("c")
    page.wait_for_function("() => !location.search.includes('vs=')")


def test_copied_sql_runs(view: Open, weeks: Site) -> None:
    """The copied SQL gives the figures that are shown, compared or not."""
    at = instant(weeks, 5)
    for path in ("", f"&at={in_url(at)}&vs=now"):
        page = view(
            weeks, f"flow?flow={CORRECTED}&days=30{path}", permissions=["clipboard-read", "clipboard-write"]
        )
        page.click("#copy-sql")
        page.wait_for_selector(".toast")
        statement = page.evaluate("() => navigator.clipboard.readText()")
        found = weeks.rows(statement.replace("%", "%%"))
        if path:
            assert len(found) == len(rows(page, "[aria-label=Differences]"))
        else:
            ((count,),) = weeks.rows(
                "SELECT count(*) FROM flow_outcomes.flow_outcome WHERE flow_id = %s AND bucket_start >= %s",
                CORRECTED,
                midnight(29),
            )
            assert len(found) == count


def test_colours_follow_the_outcome(view: Open, weeks: Site) -> None:
    """An outcome has one colour, also before its rename and where another one is the largest."""
    dots = "all => Object.fromEntries(all.map(each => [each.textContent, each.querySelector('.dot').className]))"
    page = view(weeks, f"flow?flow={RENAMED}&days=30")
    now = page.eval_on_selector_all("#sums tbody th", dots)
    page = view(weeks, f"flow?flow={RENAMED}&days=30&at={in_url(instant(weeks, 8))}")
    then = page.eval_on_selector_all("#sums tbody th", dots)
    assert now[NEW_NAME] == then[OLD_NAME]
    assert len(set(now.values())) == 4


def test_hostile_names_are_text(view: Open, weeks: Site) -> None:
    """Names with markup are shown as text everywhere, in the title too."""
    page = view(weeks, f"flow?flow={HOSTILE}&days=30")
    assert MARKUP in page.inner_text("#sums")
    assert MARKUP in page.inner_text("#total-legend")
    assert page.locator("main img, main script").count() == 0
    assert page.title().startswith("<img")


def test_choosing_a_flow(view: Open, weeks: Site) -> None:
    """Without a flow the view lists them; a search without a result says so."""
    page = view(weeks, "flow")
    assert len(rows(page, "#choices")) == 12
    page.fill("#search", "zzz")
    page.wait_for_selector("text=No flow matches “zzz”")
    page.fill("#search", "card")
    page.click("#choices a:has-text('Card Lock')")
    page.wait_for_selector("#sums")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_accessible(view: Open, weeks: Site, scheme: str, width: int) -> None:
    """Axe finds nothing against WCAG 2.2 AA, compared or not, and nothing is wider than the screen."""
    for path in (
        f"flow?flow={RENAMED}",
        f"flow?flow={CORRECTED}&days=30&at={in_url(instant(weeks, 5))}&vs=now",
        "flow",
    ):
        page = view(weeks, path, color_scheme=scheme, viewport={"width": width, "height": 844})
        assert violations(page) == []
        assert page.locator("html").evaluate("el => el.scrollWidth") <= width
