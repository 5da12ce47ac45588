"""Checks of the setup: the database, and for each org its token, its permission and one small query.

The query is sent as every other: under the org's lease and within its limit. Where another process holds the org,
its state is reported instead, and only a token is requested.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from datetime import datetime, timedelta

from service.clock import Clock
from service.config import Job, Org
from service.errors import (
    ConnectionFailedError,
    DatabaseUnavailableError,
    ExtractionError,
    ForbiddenError,
    InvalidResponseError,
    LeaseLostError,
    QueryTimeoutError,
    RateLimitedError,
    ServerError,
    UnauthorizedError,
)
from service.genesys import MILESTONE_NAMES, OUTCOME_NAMES, GenesysClient, make_client
from service.model import Finding, Granularity, Measure, Query, Span, State, instant
from service.plan import buckets
from service.postgres.lease import owner_requests
from service.postgres.lease.owner_requests import Kind
from service.postgres.merge import rehearse
from service.postgres.probe import Facts, inspect, open_connection
from service.postgres.queries.status import NO_LEASE, leases
from service.runtime.preflight_public import (
    FLOW_PAGES,
    check_flows_and_divisions,
    check_names,
    check_retention,
)
from service.runtime.process import Process
from service.telemetry import Event, counted

LEASE_TIMEOUT = 3.0
"""Seconds in which a lease that no process holds is acquired."""
ORG_TIMEOUT = 30.0
"""Seconds for an org's token and query together, with the waits for the limit and the retries."""
RATE_LIMIT_WAIT_MAX = 5.0
"""Seconds of a 429's wait that are waited for; a longer wait is reported."""
DATABASE_TIMEOUT = 10.0  # seconds
QUERY_AGE = timedelta(days=30)
SLOT_WAIT = 10.0
"""Seconds in which the process that holds an org leaves out a slot of its limit."""
SLOT_POLL_INTERVAL = 0.2  # seconds
TOKEN_TIMEOUT = timedelta(seconds=5)
"""The time of the request for a token in such a slot, which is left out for longer."""
PRIVILEGES_SHOWN = 5
_GRANTS_FIX = (
    "run the GRANTs of docs/operating.md, 'The schema', or config/roles.sql: a merge needs TEMPORARY on the"
    " database, and the schema's tables, functions and types; all of these must belong to one role"
)


class TokenRecorder:
    """An ``emit`` that records which orgs received a token, and logs nothing."""

    def __init__(self) -> None:
        self.orgs: set[str] = set()

    def emit(self, event: str, **context: object) -> None:
        """Record the org of a ``token_renewed``."""
        if event == Event.TOKEN_RENEWED:
            self.orgs.add(str(context["org"]))


async def inspect_database(dsn: str) -> Facts:
    """Connect to the database and inspect it.

    Raises:
        DatabaseUnavailableError, SchemaError: it cannot be inspected.
    """
    async with open_connection(
        dsn, "flow-outcomes check", timeout=DATABASE_TIMEOUT, read_only=False
    ) as connection:
        facts = await inspect(connection)
        return facts._replace(merge_problem=await rehearse(connection)) if facts.ready else facts


def database_findings(facts: Facts) -> list[Finding]:
    """What the facts mean for the daemon."""
    version = f"PostgreSQL {facts.version}"
    if facts.unsupported:
        return [
            Finding(
                "database", State.FAILED, f"{version}: {facts.unsupported}", "set database.dsn to another server"
            )
        ]
    if not facts.writable:
        fix = "set database.dsn to the primary, or list all hosts with target_session_attrs=read-write"
        return [
            Finding("database", State.FAILED, f"{version}, accepts no writes: it is a standby, or read-only", fix)
        ]
    if facts.missing_privileges:
        missing = ", ".join(facts.missing_privileges[:PRIVILEGES_SHOWN])
        if len(facts.missing_privileges) > PRIVILEGES_SHOWN:
            missing += ", …"
        fix = (
            "grant the role USAGE on the schema flow_outcomes, and SELECT, INSERT, UPDATE and DELETE on its tables"
        )
        return [Finding("database", State.FAILED, f"{version}, the role lacks {missing}", fix)]
    if facts.merge_problem:
        fix = "make room on the disk" if "nothing can be stored" in facts.merge_problem else _GRANTS_FIX
        return [Finding("database", State.FAILED, f"{version}: {facts.merge_problem}", fix)]
    return [Finding("database", State.OK, f"{version}, writable"), _schema_finding(facts)]


def _schema_finding(facts: Facts) -> Finding:
    if not facts.pending:
        return Finding("schema", State.OK, "up to date")
    detail = f"lacks {', '.join(facts.pending)}" if facts.schema_exists else "does not exist yet"
    if facts.may_migrate:
        state = State.FAILED if facts.schema_exists else State.OK
        return Finding("schema", state, detail, "run 'flow-outcomes migrate', or start the daemon")
    return Finding(
        "schema",
        State.FAILED,
        f"{detail}, and this role may not create it",
        "run 'flow-outcomes migrate' as the schema's owner",
    )


async def check_org(
    runtime: Process, org: Org, tokens: TokenRecorder, jobs: Collection[Job] = ()
) -> list[Finding]:
    """Check an org's token, permission and a small query; where another process holds the org, report that.

    Args:
        runtime: the process that acquires the org.
        org: what to check.
        tokens: the ``emit`` of the process.
        jobs: the org's jobs.
    """
    try:
        async with asyncio.timeout(LEASE_TIMEOUT):
            lease = await runtime.lease(org.name)
    except TimeoutError:
        runtime.release(org.name)
        return await _holder_findings(runtime, org, tokens)
    try:
        async with runtime.worker(org, lease, gives_up=True) as worker:
            return await _query(org, jobs, worker.client, runtime.clock, tokens)
    except (DatabaseUnavailableError, LeaseLostError) as error:
        return [Finding(org.name, State.FAILED, f"check interrupted: {error}", "run the check again")]
    finally:
        runtime.release(org.name)


async def check_org_without_lease(
    org: Org, clock: Clock, tokens: TokenRecorder, jobs: Collection[Job] = ()
) -> list[Finding]:
    """Check an org where there is no schema, so that no process can hold the org."""
    client = make_client(org, tokens.emit, clock, lambda: None, lambda _seconds: None, lambda _date: None)
    try:
        return await _query(org, jobs, client, clock, tokens)
    finally:
        await client.close()


async def _query(
    org: Org, jobs: Collection[Job], client: GenesysClient, clock: Clock, tokens: TokenRecorder
) -> list[Finding]:
    client.max_pause = RATE_LIMIT_WAIT_MAX
    client.query_timeout = min(client.query_timeout, timedelta(seconds=ORG_TIMEOUT / 2))
    result: int | Exception
    # The limit delays the token, the query and its poll, the names, the divisions and the retention.
    timeout = ORG_TIMEOUT + (FLOW_PAGES + 8) / org.requests_per_second
    further: list[Finding] = []
    try:
        async with asyncio.timeout(timeout):
            result = await _first_page(client, org, clock.now())
            if client.dialect.by_id:
                further = await _public_findings(org, jobs, client, clock.now())
    except TimeoutError:
        result = QueryTimeoutError(f"no response within {timeout:.0f} s")
    except ExtractionError as error:
        result = error
    if org.name not in tokens.orgs and isinstance(result, ExtractionError):
        return [Finding(f"{org.name} token", State.FAILED, f"{org.token_url}: {result}", _token_fix(org, result))]
    token = Finding(f"{org.name} token", State.OK, f"issued by {org.token_url}")
    policy = client.dialect.policy
    match result:
        case ForbiddenError():
            fix = f"give the OAuth client's role {policy.requirements}"
            return [token, Finding(f"{org.name} permission", State.FAILED, str(result), fix)]
        case ExtractionError():
            return [
                token,
                Finding(f"{org.name} query", State.FAILED, f"{org.api_url}: {result}", _query_fix(result)),
            ]
        case int():
            entries = counted(result, "entry", "entries")
            query = Finding(f"{org.name} query", State.OK, f"{org.api_url} answered; first page has {entries}")
            return [token, Finding(f"{org.name} permission", State.OK, policy.permission), query, *further]
    raise result


async def _public_findings(org: Org, jobs: Collection[Job], client: GenesysClient, now: datetime) -> list[Finding]:
    """Warnings of the public API: both lists of names, the divisions, the retention."""
    remarks = [
        *await check_flows_and_divisions(client),
        await check_names("outcome names", OUTCOME_NAMES, client),
        await check_retention(org, jobs, client, now),
    ]
    if Measure.MILESTONES in org.measures:
        remarks.append(await check_names("milestone names", MILESTONE_NAMES, client))
    return [
        Finding(f"{org.name} {each.subject}", State.WARNING if each.fix else State.OK, each.detail, each.fix)
        for each in remarks
    ]


async def _first_page(client: GenesysClient, org: Org, now: datetime) -> int:
    """Query one hour long past; returns the number of entries on the first page."""
    start = buckets.floor(now - QUERY_AGE, Granularity.HOURLY, org.tz)
    span = Span(start, buckets.following(start, Granularity.HOURLY, org.tz))
    query = Query(org.name, span, Granularity.HOURLY, org.timezone, org.flows, 1, None, span)
    pages = client.scan(query)
    try:
        async for page in pages:
            return len(page.entries)
    finally:
        if isinstance(pages, AsyncGenerator):
            await pages.aclose()
    return 0


async def _holder_findings(runtime: Process, org: Org, tokens: TokenRecorder) -> list[Finding]:
    """Report the process that holds the org, and request a token beside it."""
    try:
        async with runtime.database.connection(limit=DATABASE_TIMEOUT) as connection:
            hold = (await leases(connection, [org.name])).get(org.name, NO_LEASE)
        if hold.owner is None:
            detail = f"not checked: its lease was not acquired within {LEASE_TIMEOUT:g} s"
            fix = "another process was acquiring or releasing it: run the check again"
            return [Finding(org.name, State.FAILED, detail, fix)]
        token = await _token_beside_holder(runtime, org, tokens)
    except DatabaseUnavailableError as error:
        return [Finding(org.name, State.FAILED, f"not checked: {error}", "run the check again")]
    since = "" if hold.since is None else f" since {instant(hold.since)}"
    waits = f", rate-limited for {hold.paused_for:.0f} s more" if hold.paused_for else ""
    detail = f"held by {hold.owner}{since}, circuit breaker {hold.breaker}{waits}"
    if hold.breaker == "closed":
        holder = Finding(org.name, State.OK, detail)
    else:
        holder = Finding(org.name, State.FAILED, detail, "see 'flow-outcomes status' for the last errors")
    not_sent = "no query was sent, since another process holds the org"
    return [holder, token, Finding(f"{org.name} query", State.SKIPPED, not_sent)]


async def _token_beside_holder(runtime: Process, org: Org, tokens: TokenRecorder) -> Finding:
    """Request a token with the credentials of the file, in a slot that the org's holder leaves out.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    subject = f"{org.name} token"
    database = runtime.database
    slot = (await owner_requests.request(database, Kind.SLOT, [org.name]))[0]
    client = make_client(org, tokens.emit, runtime.clock, lambda: None, lambda _seconds: None, lambda _date: None)
    client.query_timeout = min(client.query_timeout, TOKEN_TIMEOUT)
    try:
        async with asyncio.timeout(SLOT_WAIT):
            while (await owner_requests.answer(database, slot)).begun < slot.number:  # noqa: ASYNC110 - in another process
                await asyncio.sleep(SLOT_POLL_INTERVAL)
        await client.request_token()
    except TimeoutError:
        detail = f"not requested: the process that holds the org left out no slot of the limit in {SLOT_WAIT:g} s"
        return Finding(subject, State.SKIPPED, detail, "run the check again")
    except ExtractionError as error:
        return Finding(subject, State.FAILED, f"{org.token_url}: {error}", _token_fix(org, error))
    finally:
        await client.close()
        await owner_requests.finish(database, slot)
    return Finding(subject, State.OK, f"issued by {org.token_url}")


def _token_fix(org: Org, error: ExtractionError) -> str:
    if isinstance(error, UnauthorizedError):
        if error.status is None:  # client_secret_file
            return f"set orgs.{org.name}.client_secret, or make client_secret_file readable for this user"
        return (
            f"check orgs.{org.name}.client_id and its secret, that the OAuth client is active, that its grant type"
            " is client credentials, and that region is the org's"
        )
    return _query_fix(error)


def _query_fix(error: ExtractionError) -> str:
    match error:
        case UnauthorizedError():
            return "the API rejected the login server's token: base_url and login_url must be of one region"
        case RateLimitedError():
            return error.hint
        case ConnectionFailedError():
            return error.hint or "check the network"
        case ServerError() | QueryTimeoutError():
            return "the service is failing: try again later, and see its status page"
        case InvalidResponseError():
            return "check base_url and login_url: the server there does not speak this API"
        case _:
            return "see the API's message; its developer centre explains the code"
