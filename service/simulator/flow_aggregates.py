"""The flow-aggregates dialect: answers a query with groups, from the same contact centre as the query builder.

A bucket without records is absent: neither zero nor null.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
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
from service.simulator.fault_injection import refuse_results
from service.simulator.faults import RequestFaults
from service.simulator.flow_measures import Cell, GroupKey, Stats, Tally, format_stats
from service.simulator.instants import DAY, Now, format_instant, parse_instant
from service.simulator.organisation import LiveOrg
from service.simulator.page_corruption import HTML

QUERY = "/api/v2/analytics/flows/aggregates/query"
JOBS = "/api/v2/analytics/flows/aggregates/jobs"

Result: TypeAlias = dict[str, Any]


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
    flows = [flow for flow in centre.flows() if query.flows is None or flow.id in query.flows]
    buckets = (
        [(query.start, query.end)]
        if query.step is None
        else split_buckets(query.start, query.end, query.step, query.timezone)
    )
    if org.settings.cardinality is not None and len(flows) * len(buckets) > org.settings.cardinality:
        raise too_large()
    if faults.fire("empty_answer"):
        return []
    grouped_by = query.group_by + (("mediaType",) if org.settings.extra_dimension else ())
    dimensions = [name for name in DIMENSIONS if name in grouped_by]
    tally = Tally(dimensions, query.metrics, org.division_id_of)
    groups: dict[GroupKey, Result] = {}
    for flow in flows:
        for bucket in buckets:
            _add_bucket(groups, dimensions, bucket, tally.bucket(centre, flow, bucket, now.at))
    limit, results = org.settings.result_limit, sum(len(result["data"]) for result in groups.values())
    refuse_results(faults, results)
    if limit is not None and results > limit:
        raise bad_request(f"Result set is larger than result limit of {limit}")
    return list(groups.values())


def _add_bucket(
    groups: dict[GroupKey, Result], dimensions: Sequence[str], bucket: Interval, cells: Mapping[Cell, Stats]
) -> None:
    """Add one flow's bucket to the groups."""
    metrics_by_key: dict[GroupKey, list[Result]] = {}
    for key, metric in sorted(cells, key=itemgetter(1)):
        metrics = metrics_by_key.setdefault(key, [])
        metrics.append({"metric": metric, "stats": format_stats(cells[key, metric])})
    interval = f"{format_instant(bucket[0])}/{format_instant(bucket[1])}"
    for key, metrics in metrics_by_key.items():
        group = groups.get(key)
        if group is None:
            present = {name: value for name, value in zip(dimensions, key, strict=True) if value is not None}
            group = groups[key] = {"group": present, "data": []}
        group["data"].append({"interval": interval, "metrics": metrics})


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


def _all_stats(page: Result) -> Iterator[tuple[str, Result]]:
    """Yield each metric's name with its stats."""
    for result in page.get("results") or ():
        for datum in result.get("data") or ():
            for metric in datum.get("metrics") or ():
                yield metric["metric"], metric["stats"]


def _bad_duration(page: Result, value: object) -> bool:
    durations = (stats for _, stats in _all_stats(page) if "sum" in stats)
    first = next(durations, None)
    if first is not None:
        first["sum"] = {"null": None, None: "12"}.get(value, value)  # type: ignore[call-overload]
    return first is not None


def _no_extremes(page: Result, _: object) -> bool:
    durations = [stats for _, stats in _all_stats(page) if "sum" in stats]
    for stats in durations:
        del stats["min"], stats["max"]
    return bool(durations)


def _milestones_observed(page: Result, _: object) -> bool:
    observed = [stats for name, stats in _all_stats(page) if name == "oFlowMilestone"]
    for stats in observed:
        stats["current"] = stats.pop("count")
    return bool(observed)


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
    "bad_duration": _bad_duration,
    "no_extremes": _no_extremes,
    "milestones_observed": _milestones_observed,
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
