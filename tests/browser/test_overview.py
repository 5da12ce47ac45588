"""The overview in a browser: what it shows is what the database holds."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.browser.conftest import Open, Site, rows, serving, violations
from tests.support import sample_weeks
from tests.support.sample_weeks import CORRECTED, FALLEN, HOSTILE, NAMES, midnight

WEEK = (
    "SELECT sum(outcome_count)::bigint FROM flow_outcomes.flow_outcome WHERE org = 'acme'"
    " AND flow_id = %s AND bucket_start >= %s AND bucket_start < %s"
)

FIRST_ROWS = """addEventListener("DOMContentLoaded", () => {
    new MutationObserver((_, observer) => {
        window.firstRows = document.querySelectorAll("#flows tbody tr").length;
        if (firstRows) observer.disconnect();
    }).observe(document, { subtree: true, childList: true });
})"""


def test_each_flow_has_its_week(view: Open, weeks: Site) -> None:
    """Total, change and success rate of each flow are those of the view over the last seven whole days."""
    page = view(weeks)
    shown = {row[0]: row[1:] for row in rows(page, "#flows")}
    assert len(shown) == 12
    for flow_id, name in NAMES.items():
        ((total,),) = weeks.rows(WEEK, flow_id, midnight(7), midnight(0))
        ((before,),) = weeks.rows(WEEK, flow_id, midnight(14), midnight(7))
        ((rate,),) = weeks.rows(
            WEEK.replace("sum(outcome_count)::bigint", "100.0 * sum(success_count) / sum(outcome_count)"),
            flow_id,
            midnight(7),
            midnight(0),
        )
        cells = next(row for text, row in shown.items() if text.startswith(name))
        assert cells[0] == f"{total:,}"
        assert re.sub(r"[▲▼% ]", "", cells[1]) == f"{abs(100 * total / before - 100):.1f}"
        assert cells[2] == f"{rate:.1f} %"


def test_a_fallen_success_rate_comes_first(view: Open, weeks: Site) -> None:
    """The flow that changed most is the first, with its change in points and a chart that says so."""
    page = view(weeks)
    first = rows(page, "#flows")[0]
    assert first[0] == NAMES[FALLEN]
    assert first[4].startswith("▼ 11")
    assert page.locator("#flows tbody tr").first.locator("svg.worse").count() == 1
    assert f"Figures complete through {_day(page, 1)}" in page.inner_text("#fresh")
    assert "restated today" in page.inner_text("#fresh")
    tiles = page.locator(".tile h2").all_inner_texts()
    assert tiles == ["Operations", "Success rate", "Mean time to success", "Figures restated"]


def test_marks(view: Open, weeks: Site) -> None:
    """A flow that reports nothing is marked with the day, a corrected one with the number of restated figures."""
    page = view(weeks)
    shown = {row[0]: row for row in rows(page, "#flows")}
    absent = next(row for text, row in shown.items() if text.startswith("Night Desk"))
    assert "no data since" in absent[0]
    assert shown[NAMES[CORRECTED]][-1] == "2"


@pytest.mark.parametrize("width", [390, 1440])
def test_a_mark_beside_a_long_name(view: Open, weeks: Site, width: int) -> None:
    """A name that does not fit is shortened, its mark is not."""
    weeks.rows("UPDATE flow_outcomes.flow SET name = %s || flow_id", "57c37aba-77ef-4899-9c21-0" * 4)
    page = view(weeks, viewport={"width": width, "height": 844})
    for mark in page.locator("tbody .tag").all():
        box, cell = mark.bounding_box(), mark.locator("xpath=ancestor::th").bounding_box()
        assert box is not None
        assert cell is not None
        assert box["width"] > 40
        assert box["x"] + box["width"] <= cell["x"] + cell["width"]
    assert page.locator("tbody .tag").count()


def test_without_successes(view: Open, database: str) -> None:
    """On an API without successes the largest outcome's share takes their place, and no tile is empty."""
    sample_weeks.plant(database, flows=5, split=False)
    with serving(database, sample_weeks.config(database, flows_aggregates=False)) as site:
        page = view(site)
        assert page.locator(".tile h2").all_inner_texts() == [
            "Operations",
            "Flows reporting",
            "Null figures",
            "Figures restated",
        ]
        assert page.locator(".seg button").all_inner_texts() == ["Count", "Share"]
        ((share,),) = site.rows(
            "SELECT 100.0 * sum(outcome_count) FILTER (WHERE outcome_name = 'Paid') / sum(outcome_count)"
            " FROM flow_outcomes.flow_outcome WHERE flow_id = 'flow-1' AND bucket_start >= %s",
            midnight(7),
        )
        cells = next(row for row in rows(page, "#flows") if row[0] == NAMES["flow-1"])
        assert cells[3].startswith("Paid")
        assert cells[4] == f"{share:.1f} %"
        page.context.close()


def test_a_database_without_room(view: Open, database: str) -> None:
    """A database that stores nothing is named at the top of every view."""
    sample_weeks.plant(database, flows=2)
    with serving(database, sample_weeks.config(database), "nothing can be stored: disk full") as site:
        page = view(site)
        assert "nothing can be stored: disk full" in page.inner_text("#fresh")
        page.context.close()


def test_state_is_in_the_url(view: Open, weeks: Site) -> None:
    """Sort, search and measure are in the URL; a reload keeps them, Back undoes them."""
    page = view(weeks)
    page.click("button:text-is('Count')")
    page.wait_for_selector("th:has-text('Week before')")
    page.click("th button:has-text('Total')")
    page.wait_for_selector("th[aria-sort=descending]")
    totals = [int(row[1].replace(",", "")) for row in rows(page, "#flows")]
    assert totals == sorted(totals, reverse=True)
    assert "sort=-total" in page.url
    page.fill("#search", "inbound")
    page.wait_for_function("() => location.search.includes('q=inbound')")
    visible = page.locator("#flows tbody tr:visible")
    assert visible.count() == 5
    page.reload()
    page.wait_for_selector("th[aria-sort=descending]")
    assert page.input_value("#search") == "inbound"
    assert page.locator("#flows tbody tr:visible").count() == 5
    page.go_back()
    page.wait_for_selector("th:has-text('Week before')")
    page.go_back()
    page.wait_for_selector("th:has-text('Success rate')")


def test_nothing_found(view: Open, weeks: Site) -> None:
    """A search without a result says so, not that no flow is known."""
    page = view(weeks, "?q=zzz")
    assert "No flow matches “zzz”" in page.inner_text("main")
    page.click("button:has-text('Show all flows')")
    page.wait_for_selector("#flows tbody tr:visible")


def test_by_keyboard(view: Open, weeks: Site) -> None:
    """/ searches, j and k move, Enter opens, g h and g o change the view, ? lists the keys."""
    page = view(weeks)
    page.keyboard.press("/")
    page.keyboard.type("card")
    page.wait_for_function("() => location.search.includes('q=card')")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Card Lock')")
    assert "/flow?" in page.url
    page.go_back()
    page.wait_for_selector("#flows")
    assert page.input_value("#search") == "card"
    page.keyboard.press("g")
    page.keyboard.press("h")
    page.wait_for_selector("h1:has-text('Health')")
    page.keyboard.press("g")
    page.keyboard.press("o")
    page.wait_for_selector("h1:has-text('Week of')")
    page.keyboard.press("?")
    assert page.locator("dialog[open]").count() == 1


def test_a_hostile_name_is_text(view: Open, weeks: Site) -> None:
    """A name with markup is shown as text; no element is created from it."""
    page = view(weeks)
    assert NAMES[HOSTILE] in page.inner_text("#flows")
    assert page.locator("main img, main script").count() == 0
    assert "owned" not in page.title()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_accessible(view: Open, weeks: Site, scheme: str, width: int) -> None:
    """Axe finds nothing against WCAG 2.2 AA, and nothing is wider than the screen."""
    page = view(weeks, color_scheme=scheme, viewport={"width": width, "height": 844})
    assert violations(page) == []
    assert page.locator("html").evaluate("el => el.scrollWidth") <= width


def test_colours(view: Open, weeks: Site) -> None:
    """The dark scheme has a dark background and light text."""
    brightness = "el => getComputedStyle(el).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    ink = brightness.replace("backgroundColor", "color")
    light, dark = view(weeks).locator("body"), view(weeks, color_scheme="dark").locator("body")
    assert min(light.evaluate(brightness)) > 200
    assert max(light.evaluate(ink)) < 100
    assert max(dark.evaluate(brightness)) < 60
    assert min(dark.evaluate(ink)) > 180


def test_no_restatements_are_no_mountain(view: Open, weeks: Site) -> None:
    """A month without any restated figure is a line at the foot of its chart."""
    weeks.rows("DELETE FROM flow_outcomes.restated")
    tile = view(weeks).locator(".tile", has_text="Figures restated")
    line = tile.locator("path[fill=none]").get_attribute("d") or ""
    heights = {float(each) for each in re.findall(r"[ML][\d.]+ ([\d.]+)", line)}
    assert heights == {35.0}  # of 36 pixels


def test_many_flows(view: Open, weeks: Site) -> None:
    """The first rows are drawn before the others, and in the end all are; a search finds the last one at once."""
    weeks.rows(
        "INSERT INTO flow_outcomes.flow (org, flow_id, name)"
        " SELECT 'acme', 'more-' || n, 'More ' || n FROM generate_series(1, 700) n"
    )
    weeks.rows(
        "INSERT INTO flow_outcomes.series (org, series_no, flow_id, source_key, reported_name, outcome_name,"
        " revision) SELECT 'acme', 1000 + n, 'more-' || n, 'Paid', 'Paid', 'Paid', 0"
        " FROM generate_series(1, 700) n"
    )
    weeks.rows(
        "INSERT INTO flow_outcomes.figure (org, granularity, series_no, bucket_start, bucket_end, state,"
        " outcome_count, extraction_timestamp, revision) SELECT 'acme', 'daily', 1000 + n, %s, %s, 'reported',"
        " 100, now(), 1 FROM generate_series(1, 700) n",
        midnight(1),
        midnight(0),
    )
    page = view(weeks)
    page.wait_for_function("() => document.querySelectorAll('#flows tbody tr').length === 712")
    page.add_init_script(FIRST_ROWS)
    page.goto(f"{weeks.url}?sort=name")
    page.wait_for_function("() => document.querySelectorAll('#flows tbody tr').length === 712")
    assert page.evaluate("() => firstRows") == 60
    names = [row[0] for row in rows(page, "#flows")]
    assert names == sorted(names, key=str.lower)
    page.add_init_script("requestAnimationFrame = () => {}")  # no row is drawn after the first ones
    page.goto(f"{weeks.url}?q=more+700")
    page.wait_for_selector("#flows tbody tr:visible")
    assert page.locator("#flows tbody tr:visible").all_inner_texts()[0].startswith("More 700")
    page.goto(weeks.url)
    page.wait_for_selector("#flows tbody tr")
    assert page.locator("#flows tbody tr").count() == 60
    page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#flows tbody tr").count() == 712


def test_new_figures_keep_the_place(view: Open, weeks: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """New figures replace the table where the reader is in it: the position and the focused row stay."""
    monkeypatch.setattr("service.web.response_cache.MAX_AGE", 0)
    monkeypatch.setattr("service.web.endpoints._COST_FACTORS", {"/api/overview": 0})
    page = view(weeks, "?sort=name", viewport={"width": 700, "height": 500})
    page.locator("#flows tbody a").nth(8).focus()
    page.eval_on_selector("#flows .list", "box => box.scrollTo(40, 80)")
    before = rows(page, "#flows")
    weeks.rows(
        "UPDATE flow_outcomes.figure SET outcome_count = 2 * outcome_count WHERE bucket_start >= %s", midnight(7)
    )
    weeks.rows("UPDATE flow_outcomes.org SET revision = revision + 1")
    page.evaluate("() => document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_function(
        "text => document.querySelector('#flows tbody td').textContent !== text", arg=before[0][1]
    )
    assert page.eval_on_selector("#flows .list", "box => [box.scrollLeft, box.scrollTop]") == [40, 80]
    assert page.evaluate("() => document.activeElement.closest('tr').cells[0].textContent") == before[8][0]


def test_sorting_keeps_the_focus(view: Open, weeks: Site) -> None:
    """Whoever sorts by keyboard can sort again: the focus stays on the heading, whose column stays in view."""
    page = view(weeks, viewport={"width": 390, "height": 844})
    page.focus("th button:has-text('Restated')")
    scrolled = page.eval_on_selector("#flows .list", "box => box.scrollLeft")
    assert scrolled > 0
    page.keyboard.press("Enter")
    page.wait_for_selector("th[aria-sort=descending]")
    page.keyboard.press("Enter")
    page.wait_for_selector("th[aria-sort=ascending]:has-text('Restated')")
    assert page.evaluate("() => document.activeElement.textContent").startswith("Restated")
    assert page.eval_on_selector("#flows .list", "box => box.scrollLeft") == pytest.approx(scrolled, abs=20)


def test_a_phone_shows_the_change(view: Open, weeks: Site) -> None:
    """On a phone the column by which flows are sorted is in view, without scrolling sideways."""
    page = view(weeks, viewport={"width": 390, "height": 844})
    cell = page.locator("#flows tbody tr").first.locator("td:has-text('▼ 11.')").bounding_box()
    assert cell is not None
    assert cell["x"] + cell["width"] <= 390 - 16


def test_under_a_prefix(view: Open, weeks: Site) -> None:
    """Every URL that the page requests is relative to its own."""
    page = view(weeks)
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url))
    page.click("#flows tbody a >> nth=0")
    page.wait_for_selector("#sums")
    assert seen
    assert all(url.startswith(weeks.url) for url in seen)
    links = page.eval_on_selector_all("a[href]", "all => all.map(each => each.getAttribute('href'))")
    assert not [link for link in links if link.startswith(("/", "http"))]


def test_before_the_first_whole_day(view: Open, site: Site) -> None:
    """Without a whole day the overview says so, and does not count the flows that it cannot show."""
    page = view(site)
    assert "No whole day is stored yet" in page.inner_text("main")
    assert page.inner_text(".sub") == "acme · UTC"


def test_without_a_script(view: Open, site: Site) -> None:
    """Without a script the status table is shown."""
    page = view(site, java_script_enabled=False)
    assert "acme" in page.inner_text("tbody")
    assert "the page is truncated" in page.inner_text("tbody")


def _day(page: Any, back: int) -> str:  # noqa: ANN401 - the driver need not be there
    date = midnight(back)
    found: str = page.evaluate(
        "date => new Date(date + 'T12:00:00Z').toLocaleDateString('en-GB',"
        " { weekday: 'short', day: 'numeric', month: 'short', timeZone: 'UTC' }).replace(',', '')",
        f"{date:%Y-%m-%d}",
    )
    return found
