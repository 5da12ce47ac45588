"""Corrupt pages: one function for each fault of a page's content.

A corruption receives the page and the fault's value, changes the page in place and returns whether it changed
anything. No JSON encoder writes invalid UTF-8 or very deep or long values: the page has a marker in their place,
which is replaced in the encoded text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, TypeAlias

from service.simulator.faults import RequestFaults
from service.simulator.instants import DAY, format_instant, parse_instant

Document: TypeAlias = dict[str, Any]
Corruption: TypeAlias = Callable[[Document, Any], bool]

_NO_UTF8, _DEEP, _LONG = "\ue001", "\ue002", "\ue003"
HTML = b"<!doctype html><title>Please stand by</title><h1>We will be back soon</h1>"


def corrupt_page(page: Document, faults: RequestFaults) -> bytes:
    """Return the JSON text of a page after every content fault that fires now."""
    fired: dict[str, Any] = {}
    for name, corruption in _CORRUPTIONS.items():
        fault = faults.due(name)
        if fault is not None and corruption(page, fault.value):
            faults.count(name)
            fired[name] = fault.value
    if "not_json" in fired:
        return HTML
    text = json.dumps(page)  # ASCII: a lone surrogate is written as an escape
    if "invalid_utf8" in fired:
        return text.encode().replace(_escape(_NO_UTF8), b"\xff\xfe\xc3")
    if "deep_json" in fired:
        depth = int(fired["deep_json"] or 100_000)
        return text.encode().replace(b'"' + _escape(_DEEP) + b'"', b"[" * depth + b"]" * depth)
    if "long_number" in fired:
        digits = int(fired["long_number"] or 10_000)
        return text.encode().replace(b'"' + _escape(_LONG) + b'"', b"9" * digits)
    return text.encode()


def _escape(marker: str) -> bytes:
    return json.dumps(marker)[1:-1].encode()


def _entries(page: Document) -> list[Document]:
    entries: list[Document] = page.get("data", [])
    return entries


def _outcomes(page: Document) -> Document:
    """Return the outcomes of the first entry; empty if there is no entry."""
    entries = _entries(page)
    return entries[0]["metrics"]["flow-outcomes"] if entries else {}


def _corrupt_figure(page: Document, key: str, value: object) -> bool:
    outcomes = _outcomes(page)
    for name, figure in outcomes.items():
        outcomes[name] = {**figure, key: value}
        return True
    return False


def _corrupt_name(page: Document, corrupt: Callable[[str], str]) -> bool:
    outcomes = _outcomes(page)
    for name in list(outcomes)[:1]:
        outcomes[corrupt(name)] = outcomes.pop(name)
        return True
    return False


def _replace_first(page: Document, entry: object) -> bool:
    entries = _entries(page)
    if not entries:
        return False
    page["data"] = [entry, *entries[1:]]
    return True


def _missing_token(page: Document, _: object) -> bool:
    return page.pop("nextPageToken", page) is not page


def _missing_data(page: Document, _: object) -> bool:
    return page.pop("data", page) is not page


def _leave_page(_page: Document, _value: object) -> bool:
    """For faults that change the text alone."""
    return True


def _outcomes_array(page: Document, _: object) -> bool:
    for entry in _entries(page)[:1]:
        outcomes = entry["metrics"]["flow-outcomes"]
        entry["metrics"]["flow-outcomes"] = [{"name": name, **figure} for name, figure in outcomes.items()]
        return True
    return False


def _invalid_utf8(page: Document, _: object) -> bool:
    return _corrupt_name(page, lambda name: name + _NO_UTF8)


def _deep_json(page: Document, _: object) -> bool:
    page["annotations"] = _DEEP
    return True


def _long_number(page: Document, _: object) -> bool:
    return _corrupt_figure(page, "count", _LONG)


def _bad_count(page: Document, value: object) -> bool:
    return _corrupt_figure(page, "count", "12" if value is None else _parameter(value))


def _bad_percent(page: Document, value: object) -> bool:
    return _corrupt_figure(page, "percentOfTotal", "x" if value is None else _parameter(value))


def _parameter(value: object) -> object:
    """``"null"`` means null: None as a value means the fault's default."""
    return None if value == "null" else value


def _nul_name(page: Document, _: object) -> bool:
    return _corrupt_name(page, lambda name: f"{name}\0")


def _surrogate_name(page: Document, _: object) -> bool:
    return _corrupt_name(page, lambda name: f"{name}\ud800")


def _long_name(page: Document, value: Any) -> bool:  # noqa: ANN401 - a fault's value is any JSON
    length = int(value or 513)
    # Fewer characters than bytes, so that a limit in characters does not detect it.
    return _corrupt_name(page, lambda _: "é" * (length // 2) + "x" * (length % 2))


def _empty_name(page: Document, _: object) -> bool:
    return _corrupt_name(page, lambda _: "")


def _missing_flow(page: Document, _: object) -> bool:
    for entry in _entries(page)[:1]:
        entry["group"] = {}
        entry.pop("flow-id", None)
        return True
    return False


def _bad_entry(page: Document, value: object) -> bool:
    return _replace_first(page, 17 if value is None else _parameter(value))


def _bad_interval(page: Document, value: object) -> bool:
    for entry in _entries(page)[:1]:
        entry["interval"] = "yesterday" if value is None else _parameter(value)
        return True
    return False


def _bucket_outside(page: Document, value: Any) -> bool:  # noqa: ANN401 - a fault's value is any JSON
    for entry in _entries(page)[:1]:
        back = int(value or 10) * 365 * DAY
        entry["interval"] = "/".join(
            format_instant(parse_instant(end) - back) for end in entry["interval"].split("/")
        )
        return True
    return False


def _duplicate_equal(page: Document, _: object) -> bool:
    entries = _entries(page)
    entries.extend(deepcopy(entries[:1]))
    return bool(entries)


def _duplicate_different(page: Document, _: object) -> bool:
    for entry in _entries(page)[:1]:
        outcomes = entry["metrics"]["flow-outcomes"]
        other = {name: {**figure, "count": figure["count"] + 1} for name, figure in outcomes.items()}
        page["data"].append({**entry, "group": dict(entry["group"]), "metrics": {"flow-outcomes": other}})
        return True
    return False


def _withdrawn(page: Document, value: object) -> bool:
    name = value.get("outcome") if isinstance(value, Mapping) else value
    since = str(value.get("since", "")) if isinstance(value, Mapping) else ""
    changed = False
    for entry in _entries(page):
        outcomes = entry["metrics"]["flow-outcomes"]
        withdrawn = next(iter(outcomes), None) if name is None else name
        if entry["interval"] >= since and outcomes.pop(withdrawn, None) is not None:
            changed = True
    page["data"] = [entry for entry in _entries(page) if entry["metrics"]["flow-outcomes"]]
    return changed


def _extra_fields(page: Document, _: object) -> bool:
    page["queryId"], page["warnings"] = "q-1", [{"level": "info"}]
    for entry in _entries(page):
        entry["mediaTypes"] = ["voice", None]
        entry.get("group", {})["division"] = "Home"
        entry["metrics"]["tFlow"] = {"max": 1.5}
        for figure in entry["metrics"]["flow-outcomes"].values():
            figure["trend"] = {"up": True}
    return True


def _flow_beside(page: Document, _: object) -> bool:
    for entry in _entries(page):
        entry["flow-id"] = entry.pop("group")["flow-id"]
    return bool(_entries(page))


def _dates_apart(page: Document, _: object) -> bool:
    for entry in _entries(page):
        entry["dateFrom"], entry["dateTo"] = entry.pop("interval").split("/")
    return bool(_entries(page))


def _bare(page: Document, _: object) -> bool:
    outcomes = _outcomes(page)
    page.clear()
    page["metrics"] = {"flow-outcomes": outcomes}
    return True


def _no_percent(page: Document, _: object) -> bool:
    figures = [figure for entry in _entries(page) for figure in entry["metrics"]["flow-outcomes"].values()]
    for figure in figures:
        figure.pop("percentOfTotal", None)
    return bool(figures)


# The order matters: figures first, then names, then entries, then the page.
_CORRUPTIONS: dict[str, Corruption] = {
    "withdrawn": _withdrawn,
    "duplicate_different": _duplicate_different,
    "duplicate_equal": _duplicate_equal,
    "no_percent": _no_percent,
    "bad_count": _bad_count,
    "bad_percent": _bad_percent,
    "long_number": _long_number,
    "nul_name": _nul_name,
    "surrogate_name": _surrogate_name,
    "long_name": _long_name,
    "empty_name": _empty_name,
    "invalid_utf8": _invalid_utf8,
    "bucket_outside": _bucket_outside,
    "extra_fields": _extra_fields,
    "bare": _bare,
    "outcomes_array": _outcomes_array,
    "flow_beside": _flow_beside,
    "dates_apart": _dates_apart,
    "missing_flow": _missing_flow,
    "bad_interval": _bad_interval,
    "bad_entry": _bad_entry,
    "deep_json": _deep_json,
    "missing_token": _missing_token,
    "missing_data": _missing_data,
    "not_json": _leave_page,
}
