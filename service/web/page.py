"""The status as a page: one table, no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from html import escape

from service.logs import printable
from service.standing import Standing

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color:#222}"
    "table{border-collapse:collapse}th,td{padding:.3rem .8rem;text-align:left;border-bottom:1px solid #ddd}"
    "td.n{text-align:right}.bad{color:#b00020}"
)
STYLE_SOURCE = f"'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"
MOST_GAPS = 20  # of one job
_HEADINGS = ("org", "job", "breaker", "complete", "pending", "running", "failed", "newest complete", "gaps")


def page(status: Standing | None, trouble: str | None) -> str:
    """The page; ``trouble`` says why the status cannot be told, or that it is an old one."""
    body = "".join(_orgs(status)) if status is not None else ""
    warning = f'<p class="bad">{_safe(trouble)}</p>' if trouble else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>flow-outcomes</title>'
        '<meta name="viewport" content="width=device-width"><meta http-equiv="refresh" content="10">'
        f"<style>{STYLE}</style></head><body><h1>flow-outcomes</h1>{warning}{body}</body></html>"
    )


def _orgs(status: Standing) -> Iterator[str]:
    yield f"<p>As of {_safe(status['at'])}</p><table><thead><tr>"
    for heading in _HEADINGS:
        yield f"<th>{heading}</th>"
    yield "</tr></thead><tbody>"
    for name, org in status["orgs"].items():
        for job, each in org["jobs"].items():
            counts = each["windows"]
            yield f"<tr><td>{_safe(name)}</td><td>{_safe(job)}</td><td>{_safe(org['breaker'])}</td>"
            for count in (counts["complete"], counts["pending"], counts["running"], counts["failed"]):
                yield f'<td class="n">{count}</td>'
            yield f"<td>{_safe(each['newest_complete'] or 'none')}</td><td>"
            for gap in each["gaps"][:MOST_GAPS]:
                told = f"{gap['window_start']} {gap['state']}: {gap['reason']}"
                yield f'<div class="bad">{_safe(told)}</div>'
            if len(each["gaps"]) > MOST_GAPS:
                yield f"<div>and {len(each['gaps']) - MOST_GAPS} more</div>"
            yield "</td></tr>"
    yield "</tbody></table>"


def _safe(text: str) -> str:
    return escape(printable(text))
