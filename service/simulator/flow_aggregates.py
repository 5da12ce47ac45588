"""The flow-aggregates dialect: answers a query with groups, from the same contact centre as the query builder.

A bucket without records is absent: neither zero nor null.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, TypeAlias

from service.simulator.aggregates_query import (
    DIMENSIONS,
    AggregatesQuery,
    check_granularity,
    granularity_too_fine,
    parse_query,
    too_large,
)
from service.simulator.api_error import bad_request
from service.simulator.buckets import Interval, split_buckets
from service.simulator.centre import Centre
from service.simulator.faults import RequestFaults
from service.simulator.instants import DAY, HOUR, Now, format_instant, parse_instant
from service.simulator.organisation import LiveOrg
from service.simulator.page_corruption import HTML

QUERY = "/api/v2/analytics/flows/aggregates/query"
JOBS = "/api/v2/analytics/flows/aggregates/jobs"

Result: TypeAlias = dict[str, Any]
_BLOCK = 6 * HOUR
_VALUES = ("SUCCESS",) * 5 + ("FAILURE",) * 2 + ("UNKNOWN",)


def answer(org: LiveOrg, document: object, faults: RequestFaults, now: Now) -> bytes:
    """Return the JSON text of the response; raises ApiError for an invalid query."""
    query = parse_query(document, job=False)
    return corrupt_results({"results": query_results(org, query, faults, now)}, faults)


def query_results(org: LiveOrg, query: AggregatesQuery, faults: RequestFaults, now: Now) -> list[Result]:
    """Return every group with its buckets."""
    if faults.fire("granularity_refused"):
        raise granularity_too_fine()
    check_granularity(query, org.settings.granularity_limits)
    if fault := faults.fire("cardinality_refused"):
        raise too_large(int(str(fault.value or 400)))
    centre = org.centre.snapshot()
    flows = [flow.id for flow in centre.flows() if query.flows is None or flow.id in query.flows]
    buckets = (
        [(query.start, query.end)]
        if query.step is None
        else split_buckets(query.start, query.end, query.step, query.timezone)
    )
    if org.settings.cardinality is not None and len(flows) * len(buckets) > org.settings.cardinality:
        raise too_large()
    if faults.fire("empty_answer"):
        return []
    groups: dict[tuple[str, ...], Result] = {}
    grouped_by = query.group_by + (("mediaType",) if org.settings.extra_dimension else ())
    dimensions = [name for name in DIMENSIONS if name in grouped_by]
    for flow in flows:
        for bucket in buckets:
            _add_bucket(groups, _finest_groups(centre, flow, bucket, now.at), query, dimensions, bucket)
    limit = org.settings.result_limit
    if limit is not None and sum(len(result["data"]) for result in groups.values()) > limit:
        raise bad_request(f"Result set is larger than result limit of {limit}")
    return list(groups.values())


def _add_bucket(
    groups: dict[tuple[str, ...], Result],
    finest: Iterator[tuple[Mapping[str, str], int]],
    query: AggregatesQuery,
    dimensions: Sequence[str],
    bucket: Interval,
) -> None:
    """Sum one flow's bucket by the dimensions and add it to the groups."""
    counts: dict[tuple[str, ...], list[int]] = {}
    for values, count in finest:
        both = counts.setdefault(tuple(values[name] for name in dimensions), [0, 0])
        both[0] += count
        both[1] += count if values["flowOutcomeValue"] == "FAILURE" else 0
    for key, both in counts.items():
        metrics = [
            {"metric": name, "stats": {"count": count}}
            for name, count in zip(("nFlowOutcome", "nFlowOutcomeFailed"), both, strict=True)
            if count and name in query.metrics
        ]
        if metrics:
            group = groups.setdefault(key, {"group": dict(zip(dimensions, key, strict=True)), "data": []})
            group["data"].append(
                {"interval": f"{format_instant(bucket[0])}/{format_instant(bucket[1])}", "metrics": metrics}
            )


def _finest_groups(
    centre: Centre, flow: str, bucket: Interval, at: int
) -> Iterator[tuple[Mapping[str, str], int]]:
    """Yield the counts of a flow's bucket, grouped by all dimensions."""
    for outcome, values in counts_by_value(centre, flow, bucket, at).items():
        for value, count in values.items():
            for media, part in (("voice", count - count // 3), ("chat", count // 3)):
                if part:
                    yield (
                        {
                            "flowId": flow,
                            "flowOutcomeId": outcome,
                            "flowOutcomeValue": value,
                            "mediaType": media,
                        },
                        part,
                    )


def counts_by_value(centre: Centre, flow: str, bucket: Interval, at: int) -> dict[str, dict[str, int]]:
    """Return counts by outcome id and outcome value.

    All records of an outcome in one quarter of a UTC day have one value, by a hash of outcome and quarter. So the
    parts of a bucket add up to the bucket here too.
    """
    counts: dict[str, dict[str, int]] = {}
    low = bucket[0]
    while low < bucket[1]:
        block = low // _BLOCK
        high = min((block + 1) * _BLOCK, bucket[1])
        for outcome, _, count in centre.count_outcomes(flow, low, high, at):
            if count:
                digest = blake2b(f"{outcome}:{block}".encode(), digest_size=1).digest()[0]
                values = counts.setdefault(outcome, {})
                value = _VALUES[digest % len(_VALUES)]
                values[value] = values.get(value, 0) + count
        low = high
    return counts


def corrupt_results(page: Result, faults: RequestFaults) -> bytes:
    """Return the JSON text of a response after every content fault that fires now."""
    for name, corruption in _CORRUPTIONS.items():
        fault = faults.due(name)
        if fault is not None and corruption(page, fault.value):
            faults.count(name)
    if faults.fire("not_json"):
        return HTML
    return json.dumps(page).encode()


def _first_datum(page: Result) -> Result | None:
    results = page.get("results")
    return (
        next((datum for result in results if "data" in result for datum in result["data"]), None)
        if results
        else None
    )


def _missing_data(page: Result, _: object) -> bool:
    return page.pop("results", None) is not None


def _null_results(page: Result, value: object) -> bool:
    page["results"] = value
    return True


def _group_without_data(page: Result, value: object) -> bool:
    if not page.get("results"):
        return False
    more = {"group": {**page["results"][0]["group"], "flowOutcomeId": "nothing-happened"}}
    page["results"].insert(0, more if value is None else {**more, "data": value})
    return True


def _datum_without_metrics(page: Result, value: object) -> bool:
    datum = _first_datum(page)
    if datum is None:
        return False
    more = {"interval": datum["interval"]}
    page["results"][0]["data"].insert(0, more if value is None else {**more, "metrics": value})
    return True


def _bad_count(page: Result, value: object) -> bool:
    datum = _first_datum(page)
    if datum is None:
        return False
    datum["metrics"][0]["stats"]["count"] = {"null": None, None: "12"}.get(value, value)  # type: ignore[call-overload]
    return True


def _bad_failed(page: Result, value: object) -> bool:
    datum = _first_datum(page)
    if datum is None:
        return False
    others = [each for each in datum["metrics"] if each["metric"] != "nFlowOutcomeFailed"]
    datum["metrics"] = [*others, {"metric": "nFlowOutcomeFailed", "stats": {"count": value or 10**9}}]
    return True


def _bad_interval(page: Result, value: object) -> bool:
    datum = _first_datum(page)
    if datum is not None:
        datum["interval"] = "yesterday" if value is None else value
    return datum is not None


def _bucket_outside(page: Result, value: object) -> bool:
    datum = _first_datum(page)
    if datum is not None:
        past = int(str(value or 10)) * 365 * DAY
        start, end = (parse_instant(side) - past for side in datum["interval"].split("/"))
        datum["interval"] = f"{format_instant(start)}/{format_instant(end)}"
    return datum is not None


def _missing_flow(page: Result, _: object) -> bool:
    return any(result["group"].pop("flowId", None) for result in page.get("results", [])[:1])


def _bad_entry(page: Result, value: object) -> bool:
    if not page.get("results"):
        return False
    page["results"][0] = 17 if value is None else value
    return True


def _duplicate(page: Result, *, more: int) -> bool:
    datum = _first_datum(page)
    if datum is None:
        return False
    twin = json.loads(json.dumps(page["results"][0]))
    for metric in twin["data"][0]["metrics"]:
        metric["stats"]["count"] += more
    page["results"].append(twin)
    return True


def _extra_fields(page: Result, _: object) -> bool:
    page["total"] = {"unknown": [1]}
    for result in page.get("results", []):
        result["extra"] = None
        for datum in result["data"]:
            datum["views"] = []
            for metric in datum["metrics"]:
                metric["stats"]["ratio"] = 0.5
    return True


_CORRUPTIONS: Mapping[str, Callable[[Result, object], bool]] = {
    "extra_fields": _extra_fields,
    "bad_count": _bad_count,
    "bad_failed": _bad_failed,
    "bad_interval": _bad_interval,
    "bucket_outside": _bucket_outside,
    "missing_flow": _missing_flow,
    "duplicate_equal": lambda page, _: _duplicate(page, more=0),
    "duplicate_different": lambda page, _: _duplicate(page, more=1),
    "bad_entry": _bad_entry,
    "datum_without_metrics": _datum_without_metrics,
    "group_without_data": _group_without_data,
    "missing_data": _missing_data,
    "null_results": _null_results,
}
