"""Whether everything is set up: the database, and for each org its token, its permission and one tiny query.

Each finding says in plain words what is wrong and how to mend it. The query goes the way of all queries: under the
org's lease, within its limit. Where another process holds the org, that one's state is told instead.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from service.clock import Clock
from service.config import Org
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
from service.genesys import GenesysClient, make_client
from service.model import Granularity, Query, Span, instant
from service.plan import buckets
from service.postgres.probe import Facts, inspect, open_connection
from service.postgres.queries.status import NO_LEASE, leases
from service.runtime.process import Process

TAKE_WITHIN = 3.0  # seconds in which an org that nobody holds is ours
ANSWER_WITHIN = 30.0  # seconds for token and query together, the limit's spacing and retries included
HOLD_MOST = 5.0  # seconds: a longer wait that a 429 asks for is told, not waited out
DATABASE_WITHIN = 10.0
LONG_PAST = timedelta(days=30)

_CERTIFICATE = (
    "its certificate is not trusted here: a proxy may open the connection, or the URL names another host;"
    " have its certificate authority installed on this machine"
)
_TLS = "it speaks no TLS that this machine does: look at the URL, and at proxies on the way"
_NAME = "the host's name is not known here: look at region (or base_url and login_url) and at this machine's DNS"
_NOBODY = "nothing answers there: look at region (or base_url and login_url), and at firewalls on the way"
_CONNECTION = {
    re.compile(r"(?i)certificate"): _CERTIFICATE,
    re.compile(r"(?i)dns|name or service|nodename|name resolution|getaddrinfo"): _NAME,
    re.compile(r"(?i)refused|connect call failed|unreachable|timed? ?out"): _NOBODY,
    re.compile(r"(?i)ssl|tls"): _TLS,
}


class Finding(NamedTuple):
    """One line of the result.

    Attributes:
        about: what was looked at.
        good: whether it is as it has to be.
        said: what was found.
        mend: what to do about it, or nothing.
    """

    about: str
    good: bool
    said: str
    mend: str = ""


class Steps:
    """Which orgs got as far as a token, by the events that their clients tell; nothing of these is logged."""

    def __init__(self) -> None:
        self.tokens: set[str] = set()

    def emit(self, event: str, **context: Any) -> None:  # noqa: ANN401 - a context holds anything
        """See what is told."""
        if event == "token_renewed":
            self.tokens.add(context["org"])


async def look(dsn: str) -> Facts:
    """What the database is like.

    Raises:
        DatabaseUnavailableError, SchemaError: it cannot be looked at.
    """
    async with open_connection(dsn, "flow-outcomes check", timeout=DATABASE_WITHIN, read_only=False) as connection:
        return await inspect(connection)


def of_database(found: Facts) -> list[Finding]:
    """What the database is like, for people."""
    reached = f"reachable, PostgreSQL {found.version}"
    if found.unsupported:
        return [Finding("database", False, f"{reached}: {found.unsupported}", "give another one in database.dsn")]
    if not found.writable:
        mend = "give the primary in database.dsn, or target_session_attrs=read-write with all hosts"
        return [Finding("database", False, f"{reached}, takes no writes: it is a standby, or read-only", mend)]
    if found.missing_privileges:
        some = ", ".join(found.missing_privileges[:5]) + (", …" if len(found.missing_privileges) > 5 else "")  # noqa: PLR2004
        mend = (
            "grant the role USAGE on the schema flow_outcomes, and SELECT, INSERT, UPDATE and DELETE on its tables"
        )
        return [Finding("database", False, f"{reached}, but the role lacks {some}", mend)]
    return [Finding("database", True, f"{reached}, writable"), _of_schema(found)]


def _of_schema(found: Facts) -> Finding:
    if not found.pending:
        return Finding("schema", True, "current")
    said = f"lacks {', '.join(found.pending)}" if found.schema_exists else "not there yet"
    if found.may_migrate:
        return Finding(
            "schema", not found.schema_exists, said, "run 'flow-outcomes migrate'; the daemon's start does it too"
        )
    return Finding(
        "schema", False, f"{said}, and this role may not make it", "run 'flow-outcomes migrate' as its owner"
    )


async def ask(runtime: Process, org: Org, steps: Steps) -> list[Finding]:
    """Token, permission and a tiny query of one org; or who holds it."""
    try:
        async with asyncio.timeout(TAKE_WITHIN):
            lease = await runtime.lease(org.name)
    except TimeoutError:
        runtime.release(org.name)
        return [await _held(runtime, org)]
    try:
        async with runtime.worker(org, lease, gives_up=True) as worker:
            return await _asked(org, worker.client, runtime.clock, steps)
    except (DatabaseUnavailableError, LeaseLostError) as error:
        return [Finding(org.name, False, f"not asked to the end: {error}", "check again")]
    finally:
        runtime.release(org.name)


async def ask_alone(org: Org, clock: Clock, steps: Steps) -> list[Finding]:
    """The same where there is no schema yet, and so nobody who could hold the org."""
    client = make_client(org, steps.emit, clock, lambda: None, lambda _seconds: None, lambda _date: None)
    try:
        return await _asked(org, client, clock, steps)
    finally:
        await client.close()


async def _asked(org: Org, client: GenesysClient, clock: Clock, steps: Steps) -> list[Finding]:
    client.max_pause = HOLD_MOST
    client.query_timeout = min(client.query_timeout, timedelta(seconds=ANSWER_WITHIN / 2))
    answer: int | Exception
    patience = ANSWER_WITHIN + 3 / org.requests_per_second  # a slow org's turns come slowly
    try:
        async with asyncio.timeout(patience):
            answer = await _first_page(client, org, clock.now())
    except TimeoutError:
        answer = QueryTimeoutError(f"no answer within {patience:.0f} s")
    except ExtractionError as error:
        answer = error
    if org.name not in steps.tokens and isinstance(answer, ExtractionError):
        return [Finding(f"{org.name} token", False, f"{org.token_url}: {answer}", _mend_token(org, answer))]
    found = [Finding(f"{org.name} token", True, f"given by {org.token_url}")]
    policy = client.dialect.policy
    match answer:
        case ForbiddenError():
            mend = f"give the OAuth client's role {policy.requirements}"
            return [*found, Finding(f"{org.name} permission", False, str(answer), mend)]
        case ExtractionError():
            return [*found, Finding(f"{org.name} query", False, f"{org.api_url}: {answer}", _mend_query(answer))]
        case _:
            said = f"answered by {org.api_url}, {answer} entries on its first page of one"
            permitted = Finding(f"{org.name} permission", True, policy.permission)
            return [*found, permitted, Finding(f"{org.name} query", True, said)]


async def _first_page(client: GenesysClient, org: Org, now: datetime) -> int:
    """How many entries the first answer holds; what would follow it is left."""
    start = buckets.floor(now - LONG_PAST, Granularity.HOURLY, org.tz)
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


async def _held(runtime: Process, org: Org) -> Finding:
    """Who holds the org."""
    try:
        async with runtime.database.connection(limit=DATABASE_WITHIN) as connection:
            hold = (await leases(connection, [org.name])).get(org.name, NO_LEASE)
    except DatabaseUnavailableError as error:
        return Finding(org.name, False, f"not asked: {error}", "check again")
    if hold.owner is None:
        mend = "another process was just taking or leaving it: check again"
        return Finding(org.name, False, f"not asked: it could not be had within {TAKE_WITHIN:g} s", mend)
    since = "" if hold.since is None else f" since {instant(hold.since)}"
    waits = f", held back by a 429 for {hold.paused_for:.0f} s more" if hold.paused_for else ""
    said = f"worked by {hold.owner}{since}, its breaker {hold.breaker}{waits}; so it was not asked"
    if hold.breaker == "closed":
        return Finding(org.name, True, said)
    return Finding(org.name, False, said, "'flow-outcomes status' has the last errors")


def _mend_token(org: Org, error: ExtractionError) -> str:
    if isinstance(error, UnauthorizedError):
        if error.status is None:  # the secret's file
            return f"give orgs.{org.name}.client_secret, or a file in client_secret_file that this user may read"
        return (
            f"look at orgs.{org.name}.client_id and its secret, that the OAuth client is active and its grant type"
            " client credentials, and that region is the org's"
        )
    return _mend_query(error)


def _mend_query(error: ExtractionError) -> str:
    match error:
        case UnauthorizedError():
            return (
                "the API refuses the token that the login server gave: base_url and login_url are of two regions"
            )
        case RateLimitedError():
            return error.hint
        case ConnectionFailedError():
            told = str(error)
            return next(
                (mend for pattern, mend in _CONNECTION.items() if pattern.search(told)), "look at the network"
            )
        case ServerError() | QueryTimeoutError():
            return "the service itself is in trouble: try later, and see its status page"
        case InvalidResponseError():
            return "look at base_url and login_url: what answers there does not speak this API"
        case _:
            return "see what the API says; its developer centre knows the code"
