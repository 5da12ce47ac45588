"""Requested runs of what is due: any process requests one, the org's owner runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from service.postgres.pool import Database

_REQUEST = """
    INSERT INTO flow_outcomes.run_request AS r (org, requested)
    SELECT org, 1 FROM unnest(%(orgs)s::text[]) AS org
    ON CONFLICT (org) DO UPDATE SET requested = r.requested + 1
    RETURNING r.org, r.requested AS number
"""
# A run that a former owner began is begun again.
_REQUESTED = """
    SELECT r.org, r.requested AS number
    FROM flow_outcomes.run_request r
    JOIN flow_outcomes.org o USING (org)
    WHERE r.requested > r.finished
      AND (r.requested > r.begun OR r.begun_epoch IS DISTINCT FROM o.epoch)
"""
_BEGIN = """
    UPDATE flow_outcomes.run_request r SET begun = %(number)s, begun_epoch = o.epoch
    FROM flow_outcomes.org o
    WHERE o.org = r.org AND r.org = %(org)s AND o.epoch = %(epoch)s
    RETURNING r.org
"""
_FINISH = """
    UPDATE flow_outcomes.run_request r SET finished = greatest(r.finished, %(number)s), unfinished = %(unfinished)s
    FROM flow_outcomes.org o
    WHERE o.org = r.org AND r.org = %(org)s AND o.epoch = %(epoch)s
"""
_PROGRESS = """
    SELECT r.begun, r.finished, r.unfinished,
           (SELECT count(*) FROM flow_outcomes.extraction_window w
            WHERE w.org = r.org AND w.state <> 'complete') AS due
    FROM flow_outcomes.run_request r
    WHERE r.org = %(org)s
"""


class RequestedRun(NamedTuple):
    """A run of one org; runs are numbered as they are requested."""

    org: str
    number: int


class RunProgress(NamedTuple):
    """The progress of an org's requested runs.

    Attributes:
        begun: the number of the last run that was begun.
        finished: the number of the last run that has ended; it answers those before it too.
        unfinished: windows that were due in that run and are not complete.
        due: windows in the ledger that are not complete now.
    """

    begun: int
    finished: int
    unfinished: int
    due: int


async def request_runs(database: Database, orgs: Sequence[str]) -> list[RequestedRun]:
    """Request a run of each org.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    async with database.transaction() as connection:
        return await connection.fetch_all(RequestedRun, _REQUEST, {"orgs": sorted(orgs)})


async def requested_runs(database: Database) -> list[RequestedRun]:
    """The runs that no present owner has begun.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    async with database.connection() as connection:
        return await connection.fetch_all(RequestedRun, _REQUESTED)


async def begin_run(database: Database, run: RequestedRun, epoch: int) -> bool:
    """Note that a run begins; whether ``epoch`` is still the org's.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    parameters = {"org": run.org, "number": run.number, "epoch": epoch}
    async with database.transaction() as connection:
        return bool(await connection.fetch_values(_BEGIN, parameters))


async def finish_run(database: Database, run: RequestedRun, epoch: int, unfinished: int) -> None:
    """Note that a run has ended; nothing is noted where ``epoch`` is no longer the org's.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    parameters = {"org": run.org, "number": run.number, "epoch": epoch, "unfinished": unfinished}
    async with database.transaction() as connection:
        await connection.execute(_FINISH, parameters)


async def run_progress(database: Database, org: str) -> RunProgress:
    """The progress of an org in which a run was requested.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    async with database.connection() as connection:
        return (await connection.fetch_all(RunProgress, _PROGRESS, {"org": org}))[0]
