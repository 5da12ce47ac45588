"""Every error that the program raises on purpose.

::

    FlowOutcomesError
    ├── ConfigError                 the configuration is invalid; lists every fault
    ├── DatabaseUnavailableError    PostgreSQL cannot be reached, or accepts no writes
    ├── ServerBusyError             the web server answers as many different requests as it can
    ├── SchemaError                 the schema is missing, outdated, or not accessible to this role
    ├── LeaseLostError              another process holds the org; nothing more may be written
    ├── ExportError                 the warehouse cannot be read or written; readers see the former export
    │   └── ExportBusyError         another process exports
    ├── StoppedError                a scan ended early and nothing failed; its windows stay due
    │   ├── AdmissionClosedError    the process is stopping, or gives up the org
    │   ├── HoursOverError          the job's off-peak hours are over
    │   ├── NotSettledError         a window has not settled by the clock that decides
    │   ├── TooWideError            the windows are requested again in narrower queries
    │   ├── PrunedError             a window starts before the org's prune date
    │   └── GivenUpError            the org is skipped for the rest of the run
    └── ExtractionError             a query did not end in a complete scan
        ├── UnauthorizedError       401, after the token was renewed once
        ├── ForbiddenError          403: a permission is missing
        ├── RequestRejectedError    another 4xx; not retried
        │   ├── GranularityError    400: the span is too wide for the granularity
        │   ├── QueryTooLargeError  400 or 413: cardinality or size; split the query
        │   ├── QueryRefusedError   400 in unforeseen words; a narrower query may pass
        │   ├── CursorExpiredError  400 or 410: restart the scan from page one
        │   └── JobFailedError      a job failed in unforeseen words; also a QueryRefusedError
        ├── RateLimitedError        429, and the wait is longer than allowed
        ├── ServerError             5xx or 408, after the retries
        ├── ConnectionFailedError   the connection failed or broke, after the retries
        │   └── NotConnectedError   there was no connection; nothing was sent
        │       └── ProxyRejectedError  the proxy refused the connection; not retried
        ├── QueryTimeoutError       no complete response within ``query_timeout``
        ├── CircuitOpenError        the org's breaker is open
        ├── StorageError            PostgreSQL rejected the write
        │   └── PartitionLockedError    a lock of another session keeps a partition from being created
        └── InvalidResponseError    an invalid page; nothing of its scan is stored
            ├── TooManySeriesError  a scan is grouped into more series than are stored
            └── ConflictError       two different figures for one (flow, bucket, outcome)
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, Self


class FlowOutcomesError(Exception):
    """The root of all errors below."""


class Fault(NamedTuple):
    """One fault of the configuration: the key as the user writes it, and a valid value in words."""

    key: str
    message: str


class ConfigError(FlowOutcomesError):
    """The configuration is invalid.

    Attributes:
        faults: every fault that was found.
    """

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults
        super().__init__("; ".join(f"{key}: {message}" for key, message in faults))


class DatabaseUnavailableError(FlowOutcomesError):
    """The database cannot be reached or accepts no writes; what was due stays due."""


class ServerBusyError(FlowOutcomesError):
    """The web server answers as many different requests as it can."""


class SchemaError(FlowOutcomesError):
    """The schema is missing, outdated, or not accessible to this role."""


class LeaseLostError(FlowOutcomesError):
    """This process no longer holds the org, or no longer the lease on the export."""


class ExportError(FlowOutcomesError):
    """The warehouse cannot be read or written; readers of it see the former export."""


class ExportBusyError(ExportError):
    """Another process exports."""


class StoppedError(FlowOutcomesError):
    """A scan ended early although nothing failed; its windows stay due."""


class AdmissionClosedError(StoppedError):
    """No further scan is admitted."""


class HoursOverError(StoppedError):
    """The job's off-peak hours are over; nothing of the scan was stored."""


class NotSettledError(StoppedError):
    """A window's end plus delay has not passed by the clock that decides; nothing of the scan was stored.

    Attributes:
        settled: how many of the scan's windows, counted from the first, have settled.
        seconds: time until the next one settles.
    """

    def __init__(self, message: str, *, settled: int, seconds: float) -> None:
        super().__init__(message)
        self.settled = settled
        self.seconds = seconds


class TooWideError(StoppedError):
    """A query over several windows was too wide; they are requested again in narrower queries."""


class PrunedError(StoppedError):
    """A window starts before the org's prune date; nothing of the scan was stored.

    Attributes:
        before: the prune date.
    """

    def __init__(self, message: str, *, before: datetime) -> None:
        super().__init__(message)
        self.before = before


class GivenUpError(StoppedError):
    """The org is skipped for the rest of this run."""


class ExtractionError(FlowOutcomesError):
    """A query did not end in a complete scan.

    Attributes:
        hint: what an operator can do, or empty.
        status: the HTTP status; None where there was no response.
        code: the API's error code, or None.
        context_id: the API's ``contextId``, which Genesys support needs, or None.
        correlation_id: the response's ``ININ-Correlation-Id``, which Genesys support needs too, or None.
        while_waiting: whether the connection broke after the request was sent.
    """

    hint = ""
    while_waiting = False

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        context_id: str | None = None,
        correlation_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.context_id = context_id
        self.correlation_id = correlation_id

    @property
    def of_gateway(self) -> bool:
        """Whether a gateway's limit on the duration or the size of a response may be the cause.

        That is so for a 413, a 504, and a connection that broke while the response was awaited.
        """
        return self.while_waiting or self.status in _GATEWAY_STATUSES

    def with_message(self, message: str) -> Self:
        """A copy of the error with another message."""
        error = type(self).__new__(type(self), message)  # the constructors differ, the attributes are copied
        vars(error).update(vars(self))
        return error


_GATEWAY_STATUSES = (413, 504)


class UnauthorizedError(ExtractionError):
    """The API or the login server did not accept the token or the credentials."""

    hint = "check client_id and client_secret, and that the OAuth client is active"


class ForbiddenError(ExtractionError):
    """A permission or an OAuth scope is missing."""

    hint = "grant the OAuth client what is named, in every division; a change takes up to five minutes"


class RequestRejectedError(ExtractionError):
    """A 4xx that a retry would not change."""


class GranularityError(RequestRejectedError):
    """The span is too wide for the granularity."""


class QueryTooLargeError(RequestRejectedError):
    """The response would be too large; a half of the query may pass."""

    @property
    def of_gateway(self) -> bool:
        """False: the API itself names the size."""
        return False


class QueryRefusedError(RequestRejectedError):
    """A 400 that names no credentials, permission or syntax; the query may be too wide."""


class CursorExpiredError(RequestRejectedError):
    """The cursor, or the job behind it, no longer exists.

    Attributes:
        after_pages: whether the last attempt of a scan had read pages before: the scan may outlast its cursor.
    """

    after_pages = False


class JobFailedError(QueryRefusedError, CursorExpiredError):
    """A job failed in unforeseen words: its query may be too wide; one over a single bucket is submitted again."""


class RateLimitedError(ExtractionError):
    """The org is rate-limited.

    Attributes:
        retry_after: seconds until requests may be sent again.
        status: 429; None where nothing was sent because the wait exceeds the maximum.
    """

    hint = "another client uses the org's limit; lower requests_per_second here or there"

    def __init__(self, message: str, *, retry_after: float, status: int | None = 429) -> None:
        super().__init__(message, status=status)
        self.retry_after = retry_after


class ServerError(ExtractionError):
    """The server answered with 5xx, or with 408."""


class ConnectionFailedError(ExtractionError):
    """The connection could not be established, or broke before the response was complete."""


class NotConnectedError(ConnectionFailedError):
    """No connection was established; nothing was sent.

    Attributes:
        hint: what an operator can do, or empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ProxyRejectedError(NotConnectedError):
    """The proxy refused the connection for a reason that a retry would not change."""


class QueryTimeoutError(ExtractionError):
    """The response was not complete within the time allowed."""


class CircuitOpenError(ExtractionError):
    """The org's breaker is open.

    Attributes:
        retry_after: seconds until a request may be sent.
    """

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StorageError(ExtractionError):
    """PostgreSQL rejected the rows of a scan, or the role may not write them."""

    hint = "see PostgreSQL's message; check the schema's version and the role's privileges"


class PartitionLockedError(StorageError):
    """Another session holds a lock on the partitioned table."""

    hint = "end that transaction; the window is retried"


class InvalidResponseError(ExtractionError):
    """A response that does not follow the API's format; nothing of its scan is stored."""


class TooManySeriesError(InvalidResponseError):
    """A scan is grouped into more series than are stored."""


class ConflictError(InvalidResponseError):
    """A scan holds two different figures for one outcome in one bucket."""
