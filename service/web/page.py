"""The page with the status as a table, so that it is useful without a script."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from service.status import Status
from service.telemetry import printable
from service.web.assets import assets

MAX_GAPS = 20
"""Gaps shown for one job."""
_STATES = ("complete", "pending", "running", "failed")
_HEADINGS = ("org", "job", "breaker", *_STATES, "newest complete", "missing windows")


def render_page(status: Status | None, problem: str | None, org: str) -> str:
    """Render the page.

    Args:
        status: the last known status, or None.
        problem: why the current status could not be read, or None.
        org: the org that is shown: the URL's, or the first where the URL names none or an unknown one.
    """
    table = "".join((*_table(status), *_export(status))) if status is not None else ""
    warning = f'<p class="bad">{_safe(problem)}</p>' if problem else ""
    head, _, foot = assets()["index.html"].body.decode().partition("<!--status-->")
    head = head.replace("<body>", f'<body data-org="{_safe(org)}">')
    return f"{head}{warning}{table}{foot}"


def _table(status: Status) -> Iterator[str]:
    yield f"<p>As of {_safe(status['at'])}</p>"
    yield '<div class="scroll" tabindex="0" role="region" aria-label="Status table"><table><thead><tr>'
    for heading in _HEADINGS:
        yield f'<th scope="col">{heading}</th>'
    yield "</tr></thead><tbody>"
    for name, org in status["orgs"].items():
        for job, each in org["jobs"].items():
            counts = each["windows"]
            yield f"<tr><td>{_safe(name)}</td><td>{_safe(job)}</td><td>{_safe(org['breaker'])}</td>"
            for count in (counts["complete"], counts["pending"], counts["running"], counts["failed"]):
                yield f"<td>{count}</td>"
            yield f"<td>{_safe(each['newest_complete'] or 'none')}</td><td>"
            for gap in each["gaps"][:MAX_GAPS]:
                text = f"{gap['window_start']} {gap['state']}: {gap['reason']}"
                yield f'<div class="bad">{_safe(text)}</div>'
            if len(each["gaps"]) > MAX_GAPS:
                yield f"<div>and {len(each['gaps']) - MAX_GAPS} more</div>"
            yield "</td></tr>"
    yield "</tbody></table></div>"


def _export(status: Status) -> Iterator[str]:
    export = status["export"]
    if export is None:
        return
    of = f"number {export['export']} of {export['exported_at']}" if export["exported_at"] else "none yet"
    yield f"<p>Export to {_safe(export['warehouse'])}: {_safe(of)}</p>"
    if export["failed_at"] is not None:
        text = f"Export failed at {export['failed_at']}: {export['last_error']}"
        yield f'<p class="bad">{_safe(text)}</p>'


def _safe(text: str) -> str:
    return escape(printable(text))
