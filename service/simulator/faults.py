"""Switches for everything that can go wrong, each with its schedule, each counted when it strikes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from hashlib import blake2b


@dataclass(frozen=True, slots=True)
class Fault:
    """One switch and its schedule; all conditions must hold. As it stands it strikes at every opportunity.

    Attributes:
        value: what the fault is made with, such as a status or a count; None is the fault's own default.
        page: only at this page of a scan, from 1.
        request: only at this request (an org's queries and token requests are numbered apart, from 1).
        probability: strikes with this probability, decided by a hash of ``seed`` and the request's number.
        times: strikes this often at most.
        seed: of the probability.
    """

    value: object = None
    page: int | None = None
    request: int | None = None
    probability: float = 1.0
    times: int | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Faults:
    """Every switch there is; None is off. Values in brackets are the defaults.

    Attributes:
        slow: waits ``value`` [2] seconds before the headers.
        connection_reset: resets the connection in place of an answer.
        redirect: 307 to a place that answers a plausible empty page.
        throttled: 429; ``value`` ["1"] is its Retry-After, "absent" for none.
        server_error: ``value`` [503] is the status.
        unauthorized: 401, with a token that was good.
        forbidden: 403, the permission named.
        hostile_error: ``value`` [400] is the status; the text repeats the Authorization header.
        granularity_refused: 400 granularityTooFine; ``value`` [any] is the only time group refused.
        cardinality_refused: 400 for the cardinality.
        cursor_expired: ``value`` [410] is the status; at pages from 2.
        missing_token: a page without the field nextPageToken.
        repeated_token: a page from 2 on answers the token that it was asked with.
        cursor_loop: a page from 2 on answers the token of page 2.
        empty_page: no entries, and a token that leads on; [first page].
        empty_answer: page one without entries, and no more pages.
        missing_data: a page without the field data.
        outcomes_array: the first entry's flow-outcomes as an array.
        not_json: status 200 and HTML.
        invalid_utf8: bytes that are no UTF-8 in an outcome's name.
        deep_json: an unknown field nested ``value`` [100000] deep.
        long_number: a count of ``value`` [10000] digits.
        truncated: half the body, then the connection closes; ``value`` ["length"] or "chunked".
        drip: the body in ten pieces over ``value`` [2] seconds.
        gzip_bomb: a small gzip'd body that unpacks to ``value`` [65] MiB of valid JSON.
        utc_cut: days and months cut in UTC whatever the org's time zone; [whole scan].
        bad_count: the first outcome's count is ``value`` ["12"].
        bad_percent: the first outcome's percentOfTotal is ``value`` ["x"].
        nul_name: the first outcome's name holds a NUL.
        surrogate_name: the first outcome's name holds a lone surrogate.
        long_name: the first outcome's name is of ``value`` [513] bytes.
        empty_name: the first outcome's name is empty.
        missing_flow: the first entry names no flow.
        bad_entry: the first entry is ``value`` [17].
        bad_interval: the first entry's interval is ``value`` ["yesterday"].
        bucket_outside: the first entry's bucket lies ``value`` [10] years before the query's span.
        duplicate_equal: the first entry twice.
        duplicate_different: the first entry twice, one count higher by 1.
        withdrawn: an outcome is missing; ``value`` its name, or {"outcome": name, "since": instant} [each first].
        extra_fields: unknown fields everywhere.
        flow_beside: "flow-id" beside metrics, in place of group.
        dates_apart: dateFrom and dateTo in place of interval.
        bare: {"metrics": {"flow-outcomes": {…}}} with the first entry's outcomes, and nothing else.
        no_percent: no percentOfTotal.
        bad_failed: the first group's nFlowOutcomeFailed is ``value`` [10**9].
        job_lost: a job is begun, and the connection reset in place of the answer.
        job_refused: 503 in place of beginning a job.
        job_state: a job's state is ``value`` ["FAILED"].
        rate_headers: ``value`` (a mapping) in place of some of the inin-ratelimit headers.
        date: the Date header of any response is ``value`` seconds off, or that text; ["absent"].
        token_slow: the token endpoint waits ``value`` [2] seconds.
        token_reset: it resets the connection.
        token_error: ``value`` [500] is its status.
        token_throttled: 429; ``value`` ["1"] is its Retry-After.
        token_not_json: status 200 and HTML.
        token_hostile: 400, and the text repeats the Authorization header.
        token_missing: status 200 without access_token.
        expires_in: ``value`` [-1] in place of the token's lifetime, "absent" for none.
    """

    slow: Fault | None = None
    connection_reset: Fault | None = None
    redirect: Fault | None = None
    throttled: Fault | None = None
    server_error: Fault | None = None
    unauthorized: Fault | None = None
    forbidden: Fault | None = None
    hostile_error: Fault | None = None
    granularity_refused: Fault | None = None
    cardinality_refused: Fault | None = None
    cursor_expired: Fault | None = None
    missing_token: Fault | None = None
    repeated_token: Fault | None = None
    cursor_loop: Fault | None = None
    empty_page: Fault | None = None
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
    job_lost: Fault | None = None
    job_refused: Fault | None = None
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
PUBLIC_FAULTS = frozenset({"bad_failed", "job_lost", "job_refused", "job_state", "rate_headers"})
"""Those that the query builder has no opportunity for."""


class FaultPlan:
    """An org's switches as they stand, and what has struck.

    Args:
        faults: the switches to begin with.
        fired: where strikes are counted, by the fault's name.
    """

    def __init__(self, faults: Faults, fired: Counter[str]) -> None:
        self._fired = fired
        self._on: dict[str, Fault] = {}
        self._struck: Counter[str] = Counter()
        self._requests: Counter[str] = Counter()
        for name in sorted(FAULT_NAMES):
            self.switch(name, getattr(faults, name))

    def switch(self, name: str, fault: Fault | None) -> None:
        """Turn a fault on with a fresh schedule, or off; KeyError for a name that is none."""
        if name not in FAULT_NAMES:
            raise KeyError(name)
        self._struck[name] = 0
        if fault is None:
            self._on.pop(name, None)
        else:
            self._on[name] = fault

    def occasion(self, kind: str) -> Occasion:
        """A request begins; ``kind`` is the endpoint."""
        self._requests[kind] += 1
        return Occasion(self, self._requests[kind])

    def due(self, name: str, number: int, page: int) -> Fault | None:
        """The fault, where it is on and its schedule says now."""
        fault = self._on.get(name)
        if (
            fault is None
            or fault.page not in (None, page)
            or fault.request not in (None, number)
            or (fault.times is not None and self._struck[name] >= fault.times)
        ):
            return None
        draw = blake2b(f"{fault.seed}:{name}:{number}".encode(), digest_size=8).digest()
        return fault if int.from_bytes(draw, "big") < fault.probability * 2**64 else None

    def count(self, name: str) -> None:
        """It struck."""
        self._struck[name] += 1
        self._fired[name] += 1

    @property
    def idle(self) -> bool:
        """Whether no switch is on."""
        return not self._on


class Occasion:
    """One request, as an opportunity for faults; ``page`` is the page of the scan that it asks for."""

    def __init__(self, plan: FaultPlan, number: int) -> None:
        self._plan = plan
        self._number = number
        self.page = 1

    @property
    def idle(self) -> bool:
        """Whether nothing can strike."""
        return self._plan.idle

    def due(self, name: str) -> Fault | None:
        """The fault, where it is to strike now; not yet counted."""
        return self._plan.due(name, self._number, self.page)

    def count(self, name: str) -> None:
        """It struck."""
        self._plan.count(name)

    def strike(self, name: str) -> Fault | None:
        """The fault, where it is to strike now, counted."""
        fault = self.due(name)
        if fault is not None:
            self.count(name)
        return fault
