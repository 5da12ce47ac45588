"""What any process may request of an org's owner: a run of what is due, or a slot of the limit.

The requests of an org and a kind are numbered as they come, and one answer serves all that were made before it. A
request that a former owner began is begun again.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from service.postgres.pool import Database

_REQUEST = """
    INSERT INTO flow_outcomes.owner_request AS r (org, kind, requested)
    SELECT org, %(kind)s, 1 FROM unnest(%(orgs)s::text[]) AS org
    ON CONFLICT (org, kind) DO UPDATE SET requested = r.requested + 1
    RETURNING r.org, r.kind, r.requested AS number
"""
_PENDING = """
    SELECT r.org, r.kind, r.requested AS number
    FROM flow_outcomes.owner_request r
    JOIN flow_outcomes.org o USING (org)
    WHERE r.requested > r.finished
      AND (r.requested > r.begun OR r.begun_epoch IS DISTINCT FROM o.epoch)
"""
_BEGIN = """
    UPDATE flow_outcomes.owner_request r SET begun = %(number)s, begun_epoch = o.epoch
    FROM flow_outcomes.org o
    WHERE o.org = r.org AND r.org = %(org)s AND r.kind = %(kind)s AND o.epoch = %(epoch)s
    RETURNING r.org
"""
_FINISH = """
    UPDATE flow_outcomes.owner_request r
    SET finished = greatest(r.finished, %(number)s), unfinished = %(unfinished)s
    FROM flow_outcomes.org o
    WHERE o.org = r.org AND r.org = %(org)s AND r.kind = %(kind)s AND o.epoch = coalesce(%(epoch)s, o.epoch)
"""
_ANSWER = """
    SELECT r.begun, r.finished, r.unfinished
    FROM flow_outcomes.owner_request r
    WHERE r.org = %(org)s AND r.kind = %(kind)s
"""
_DUE = """
    SELECT count(*) FROM flow_outcomes.extraction_window w WHERE w.org = %(org)s AND w.state <> 'complete'
"""


class Kind(StrEnum):
    """What is requested.

    Attributes:
        RUN: a run of what is due, as SIGUSR1 starts one.
        SLOT: one slot of the limit, which the owner leaves out until the request is finished, or for some seconds.
    """

    RUN = "run"
    SLOT = "slot"


class OwnerRequest(NamedTuple):
    """A request; those of one org and kind are numbered."""

    org: str
    kind: str
    number: int


class RequestAnswer(NamedTuple):
    """How far the requests of one org and kind are answered.

    Attributes:
        begun: the number of the last request that the owner began to answer.
        finished: the number of the last one that is answered; those before it are too.
        unfinished: of a run: windows that were due in it and are not complete.
    """

    begun: int
    finished: int
    unfinished: int


async def request(database: Database, kind: Kind, orgs: Sequence[str]) -> list[OwnerRequest]:
    """Make a request of each org's owner.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    async with database.transaction() as connection:
        return await connection.fetch_all(OwnerRequest, _REQUEST, {"kind": kind, "orgs": sorted(orgs)})


async def pending(database: Database) -> list[OwnerRequest]:
    """The requests that no present owner has begun, the last one of each org and kind.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    async with database.connection() as connection:
        return await connection.fetch_all(OwnerRequest, _PENDING)


async def begin(database: Database, request: OwnerRequest, epoch: int) -> bool:
    """Note that the owner begins to answer; whether ``epoch`` is still the org's.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    async with database.transaction() as connection:
        return bool(await connection.fetch_values(_BEGIN, {**request._asdict(), "epoch": epoch}))


async def finish(
    database: Database, request: OwnerRequest, *, epoch: int | None = None, unfinished: int = 0
) -> None:
    """Note that a request is answered, or withdrawn by who made it.

    Args:
        database: the pool.
        request: the request.
        epoch: nothing is noted where it is no longer the org's; None for a process that is not the owner.
        unfinished: of a run: windows that were due in it and are not complete.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    parameters = {**request._asdict(), "epoch": epoch, "unfinished": unfinished}
    async with database.transaction() as connection:
        await connection.execute(_FINISH, parameters)


async def answer(database: Database, request: OwnerRequest) -> RequestAnswer:
    """How far the request, and others of its org and kind, are answered.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    async with database.connection() as connection:
        return (await connection.fetch_all(RequestAnswer, _ANSWER, request._asdict()))[0]


async def windows_due(database: Database, org: str) -> int:
    """The number of the org's windows that are not complete.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    async with database.connection() as connection:
        return int((await connection.fetch_values(_DUE, {"org": org}))[0])
