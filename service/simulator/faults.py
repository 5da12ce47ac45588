"""Fault switches: each has a schedule and is counted when it fires."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from hashlib import blake2b


@dataclass(frozen=True, slots=True)
class Fault:
    """One switch and its schedule; all conditions must hold. By default it fires at every opportunity.

    Attributes:
        value: the fault's parameter, such as a status or a count; None for the fault's default.
        page: fires only at this page of a scan, from 1.
        request: fires only at this request; an org's queries and token requests are numbered separately, from 1.
        probability: fires with this probability, decided by a hash of ``seed`` and the request's number.
        times: fires at most this often.
        seed: seed of the probability.
    """

    value: object = None
    page: int | None = None
    request: int | None = None
    probability: float = 1.0
    times: int | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Faults:
    """All switches; None is off. Values in brackets are the defaults.

    Attributes:
        slow: waits ``value`` [2] seconds before the headers.
        connection_reset: resets the connection instead of responding.
        idle_reset: resets a POST on a connection that has carried a request before, as a balancer that forgot it.
        redirect: 307 to a path that returns a plausible empty page.
        throttled: 429; ``value`` ["1"] is its Retry-After, "absent" for none.
        server_error: ``value`` [503] is the status.
        unauthorized: 401 for a valid token.
        forbidden: 403 that names the permission.
        hostile_error: ``value`` [400] is the status; the text repeats the Authorization header.
        granularity_refused: 400 granularityTooFine; ``value`` [any] is the only time group rejected.
        cardinality_refused: 400 for cardinality.
        result_limit: refuses more than ``over`` [1] entries (flow-aggregates: groups times buckets); ``value`` is
            a mapping with ``over``, ``status`` [400], ``code`` and ``message``, in the words of any server.
        span_limit: refuses spans over ``hours`` [24]; ``value`` is a mapping with ``hours``, ``status`` [504],
            "reset" for a broken connection, "none" for no response, and for JSON instead of a gateway's HTML
            ``code`` and ``message``.
        cursor_expired: ``value`` [410] is the status; at pages from 2.
        missing_token: a page without the field nextPageToken.
        repeated_token: a page from 2 on returns the token of its request.
        cursor_loop: a page from 2 on returns the token of page 2.
        empty_page: no entries, and a token for the next page; [first page].
        endless: no entries, or for the ``value`` "repeated" its own; a token that leads to the same page again.
        empty_answer: page one without entries, and no more pages.
        missing_data: a page without the field data; of flow-aggregates without results, which is an empty answer.
        outcomes_array: the first entry's flow-outcomes as an array.
        not_json: status 200 and HTML.
        invalid_utf8: invalid UTF-8 in an outcome's name.
        deep_json: an unknown field nested ``value`` [100000] deep.
        long_number: a count of ``value`` [10000] digits.
        truncated: half of the body, then the connection closes; ``value`` ["length"] or "chunked".
        drip: the body in ten pieces over ``value`` [2] seconds.
        gzip_bomb: a small gzip'd body that unpacks to ``value`` [65] MiB of valid JSON.
        utc_cut: days and months begin in UTC, whatever the org's time zone; [every page].
        bad_count: the first outcome's count is ``value`` ["12"].
        bad_percent: the first outcome's percentOfTotal is ``value`` ["x"].
        nul_name: the first outcome's name contains a NUL.
        surrogate_name: the first outcome's name contains a lone surrogate.
        long_name: the first outcome's name has ``value`` [513] bytes.
        empty_name: the first outcome's name is empty.
        missing_flow: the first entry has no flow id.
        bad_entry: the first entry is ``value`` [17].
        bad_interval: the first entry's interval is ``value`` ["yesterday"].
        bucket_outside: the first entry's bucket is ``value`` [10] years before the query's span.
        duplicate_equal: the first entry twice.
        duplicate_different: the first entry twice, one count higher by 1.
        withdrawn: an outcome is missing; ``value`` its name, or {"outcome": name, "since": instant} [each first].
        extra_fields: unknown fields everywhere.
        flow_beside: "flow-id" beside metrics instead of group.
        dates_apart: dateFrom and dateTo instead of interval.
        bare: {"metrics": {"flow-outcomes": {…}}} with the first entry's outcomes, and nothing else.
        no_percent: no percentOfTotal.
        bad_failed: the first group's nFlowOutcomeFailed is ``value`` [10**9].
        bad_duration: the sum of the first duration is ``value`` ["12"].
        no_extremes: durations have neither min nor max.
        milestones_observed: oFlowMilestone has no count, but ``current``.
        null_results: results are ``value`` [null].
        group_without_data: one group more, which has no data; with a ``value`` that is its data.
        datum_without_metrics: one bucket more in the first group, which has no metrics; with a ``value`` those.
        settings_body: the body of a response about divisions or retention is ``value`` [{}].
        job_lost: a job is started, and the connection is reset instead of responding.
        job_refused: 503 instead of starting a job.
        job_result_limit: a job of more than ``value`` [1] results fails, in words that name no size.
        job_state: a job's state is ``value`` ["FAILED"].
        rate_headers: ``value`` (a mapping) replaces some of the inin-ratelimit headers.
        date: the Date header of a response is ``value`` seconds ahead, or that text; ["absent"].
        token_slow: the token endpoint waits ``value`` [2] seconds.
        token_reset: the token endpoint resets the connection.
        token_error: ``value`` [500] is the token endpoint's status.
        token_throttled: 429; ``value`` ["1"] is its Retry-After.
        token_not_json: status 200 and HTML.
        token_hostile: 400, and the text repeats the Authorization header.
        token_missing: status 200 without access_token.
        expires_in: ``value`` [-1] instead of the token's lifetime, "absent" for none.
    """

    slow: Fault | None = None
    connection_reset: Fault | None = None
    idle_reset: Fault | None = None
    redirect: Fault | None = None
    throttled: Fault | None = None
    server_error: Fault | None = None
    unauthorized: Fault | None = None
    forbidden: Fault | None = None
    hostile_error: Fault | None = None
    granularity_refused: Fault | None = None
    cardinality_refused: Fault | None = None
    result_limit: Fault | None = None
    span_limit: Fault | None = None
    cursor_expired: Fault | None = None
    missing_token: Fault | None = None
    repeated_token: Fault | None = None
    cursor_loop: Fault | None = None
    empty_page: Fault | None = None
    endless: Fault | None = None
    empty_answer: Fault | None = None
    missing_data: Fault | None = None
    outcomes_array: Fault | None = None
    not_json: Fault | None = None
    invalid_utf8: Fault | None = None
    deep_json: Fault | None = None
    long_number: Fault | None = None
    truncated: Fault | None = None
    drip: Fault | None = None
    gzip_bomb: Fault | None = None
    utc_cut: Fault | None = None
    bad_count: Fault | None = None
    bad_percent: Fault | None = None
    nul_name: Fault | None = None
    surrogate_name: Fault | None = None
    long_name: Fault | None = None
    empty_name: Fault | None = None
    missing_flow: Fault | None = None
    bad_entry: Fault | None = None
    bad_interval: Fault | None = None
    bucket_outside: Fault | None = None
    duplicate_equal: Fault | None = None
    duplicate_different: Fault | None = None
    withdrawn: Fault | None = None
    extra_fields: Fault | None = None
    flow_beside: Fault | None = None
    dates_apart: Fault | None = None
    bare: Fault | None = None
    no_percent: Fault | None = None
    bad_failed: Fault | None = None
    bad_duration: Fault | None = None
    no_extremes: Fault | None = None
    milestones_observed: Fault | None = None
    null_results: Fault | None = None
    group_without_data: Fault | None = None
    datum_without_metrics: Fault | None = None
    settings_body: Fault | None = None
    job_lost: Fault | None = None
    job_refused: Fault | None = None
    job_result_limit: Fault | None = None
    job_state: Fault | None = None
    rate_headers: Fault | None = None
    date: Fault | None = None
    token_slow: Fault | None = None
    token_reset: Fault | None = None
    token_error: Fault | None = None
    token_throttled: Fault | None = None
    token_not_json: Fault | None = None
    token_hostile: Fault | None = None
    token_missing: Fault | None = None
    expires_in: Fault | None = None


FAULT_NAMES = frozenset(one.name for one in fields(Faults))
PUBLIC_FAULTS = frozenset(
    {
        "bad_failed",
        "bad_duration",
        "no_extremes",
        "milestones_observed",
        "null_results",
        "group_without_data",
        "datum_without_metrics",
        "settings_body",
        "job_lost",
        "job_refused",
        "job_result_limit",
        "job_state",
        "rate_headers",
    }
)
"""Faults that cannot fire for a query-builder request."""


class FaultPlan:
    """An org's switches and how often each has fired.

    Args:
        faults: the initial switches.
        fired: counts each fault that fires, by name.
    """

    def __init__(self, faults: Faults, fired: Counter[str]) -> None:
        self._fired = fired
        self._on: dict[str, Fault] = {}
        self._since_switched: Counter[str] = Counter()
        self._requests: Counter[str] = Counter()
        for name in sorted(FAULT_NAMES):
            self.switch(name, getattr(faults, name))

    def switch(self, name: str, fault: Fault | None) -> None:
        """Turn a fault on with a new schedule, or off; raises KeyError for an unknown name."""
        if name not in FAULT_NAMES:
            raise KeyError(name)
        self._since_switched[name] = 0
        if fault is None:
            self._on.pop(name, None)
        else:
            self._on[name] = fault

    def for_request(self, kind: str) -> RequestFaults:
        """Number a request to an endpoint and return its faults."""
        self._requests[kind] += 1
        return RequestFaults(self, self._requests[kind])

    def due(self, name: str, number: int, page: int) -> Fault | None:
        """Return the fault if it is on and its schedule matches."""
        fault = self._on.get(name)
        if (
            fault is None
            or fault.page not in (None, page)
            or fault.request not in (None, number)
            or (fault.times is not None and self._since_switched[name] >= fault.times)
        ):
            return None
        draw = blake2b(f"{fault.seed}:{name}:{number}".encode(), digest_size=8).digest()
        return fault if int.from_bytes(draw, "big") < fault.probability * 2**64 else None

    def count(self, name: str) -> None:
        """Count a fault that fired."""
        self._since_switched[name] += 1
        self._fired[name] += 1

    @property
    def idle(self) -> bool:
        """Whether all switches are off."""
        return not self._on


class RequestFaults:
    """The faults that can fire for one request.

    Attributes:
        page: the requested page of the scan, from 1.
    """

    def __init__(self, plan: FaultPlan, number: int) -> None:
        self._plan = plan
        self._number = number
        self.page = 1

    @property
    def idle(self) -> bool:
        """Whether no fault can fire."""
        return self._plan.idle

    def due(self, name: str) -> Fault | None:
        """Return the fault if it is to fire now, without counting it."""
        return self._plan.due(name, self._number, self.page)

    def count(self, name: str) -> None:
        """Count a fault that fired."""
        self._plan.count(name)

    def fire(self, name: str) -> Fault | None:
        """Return the fault if it is to fire now, and count it."""
        fault = self.due(name)
        if fault is not None:
            self.count(name)
        return fault
