"""Every error that the program raises on purpose.

::

    FlowOutcomesError
    ├── ConfigError               the configuration, all its faults at once
    ├── DatabaseUnavailableError         PostgreSQL cannot be reached, or not written
    ├── SchemaError               the schema is not there, or not for this role to read
    ├── LeaseLostError            another process works the org now: write nothing more
    ├── StoppedError                a scan ended early and nothing failed; its windows stay due
    │   ├── AdmissionClosedError    the process is stopping, or gives up the org
    │   ├── HoursOverError          the job's off-peak hours are over
    │   ├── NotSettledError         a window has not settled by the clock that decides
    │   └── GivenUpError            the org is skipped for the rest of the run
    └── ExtractionError           a query did not end in a complete scan
        ├── UnauthorizedError     401, after the token was renewed once
        ├── ForbiddenError        403: a permission is missing
        ├── RequestRejectedError          another 4xx, not retried
        │   ├── GranularityError  400: the span is too wide for the granularity
        │   ├── QueryTooLargeError     400: cardinality or size; halve the query
        │   └── CursorExpiredError       400 or 410: the cursor has expired; begin again from page one
        ├── RateLimitedError      429, and the wait is longer than the caller may wait
        ├── ServerError           5xx, or the connection broke, after the retries
        ├── QueryTimeoutError     no whole answer within ``query_timeout``
        ├── CircuitOpenError      the org's breaker is open
        ├── StorageError          PostgreSQL refuses what the scan brought, or the role may not write it
        └── PageError             a page at fault: nothing of the scan can be believed
            └── ConflictError     one (flow, bucket, outcome) with two different figures
"""

from __future__ import annotations

from typing import NamedTuple


class FlowOutcomesError(Exception):
    """The root: an error that the program knows and can explain."""


class Fault(NamedTuple):
    """One thing wrong with the configuration: the key as a user writes it, and what would be right."""

    key: str
    message: str


class ConfigError(FlowOutcomesError):
    """The configuration cannot be used; ``faults`` holds everything that is wrong with it."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults
        super().__init__("; ".join(f"{key}: {message}" for key, message in faults))


class DatabaseUnavailableError(FlowOutcomesError):
    """The database cannot be reached or does not take writes now; what was due stays due."""


class SchemaError(FlowOutcomesError):
    """The schema is not there, is not as this version needs it, or may not be read by this role."""


class LeaseLostError(FlowOutcomesError):
    """This process no longer holds the org."""


class StoppedError(FlowOutcomesError):
    """A scan ended early although nothing failed; its windows stay due."""


class AdmissionClosedError(StoppedError):
    """No further scan is admitted."""


class GivenUpError(StoppedError):
    """The org is skipped for the rest of this run."""


class HoursOverError(StoppedError):
    """The job's off-peak hours are over; what was not stored stays due."""


class NotSettledError(StoppedError):
    """Windows whose end plus delay has not passed by the clock that decides; nothing of the scan was stored.

    Attributes:
        settled: how many of the scan's windows, from its first, have settled.
        seconds: until the first of the others has.
    """

    def __init__(self, message: str, *, settled: int, seconds: float) -> None:
        super().__init__(message)
        self.settled = settled
        self.seconds = seconds


class ExtractionError(FlowOutcomesError):
    """A query did not end in a complete scan.

    Attributes:
        hint: what an operator can do about it, or empty.
        context_id: what Genesys support asks for, or None.
        status: the HTTP status, or None where there was no answer.
        code: the API's error code, or None.
    """

    hint = ""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        context_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.context_id = context_id


class UnauthorizedError(ExtractionError):
    """The credentials or the token were not accepted."""

    hint = "check client_id and client_secret, and that the OAuth client is active"


class ForbiddenError(ExtractionError):
    """A permission or an OAuth scope is missing."""

    hint = "give the OAuth client's role the permission that is named, and the client its scope"


class RequestRejectedError(ExtractionError):
    """A 4xx that asking again would not change."""


class GranularityError(RequestRejectedError):
    """The span is too wide for the granularity."""


class QueryTooLargeError(RequestRejectedError):
    """The query would answer too much; half of it may pass."""


class CursorExpiredError(RequestRejectedError):
    """The cursor is not known any more."""


class RateLimitedError(ExtractionError):
    """The org is held back for ``retry_after`` seconds."""

    hint = "something else uses up the org's limit; lower requests_per_second here or there"

    def __init__(self, message: str, *, retry_after: float, status: int | None = 429) -> None:
        super().__init__(message, status=status)
        self.retry_after = retry_after


class ServerError(ExtractionError):
    """5xx, or a connection that broke."""


class QueryTimeoutError(ExtractionError):
    """No whole answer within the time allowed."""


class CircuitOpenError(ExtractionError):
    """The org's breaker is open; nothing is sent for ``retry_after`` seconds."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StorageError(ExtractionError):
    """PostgreSQL refuses what the scan brought, or the role may not write it."""

    hint = "see what PostgreSQL says; the schema's migrations and the role's rights are the first to look at"


class PageError(ExtractionError):
    """A page that cannot be believed, so neither can its scan."""


class ConflictError(PageError):
    """The scan gave two different figures for one outcome in one bucket."""
