"""A slot of an org's limit that its owner leaves out for another process.

``check`` requests a token beside the org's owner. It requests a slot first, and sends its one request when it
is granted.
"""

from __future__ import annotations

from typing import NamedTuple

from service.postgres.pool import Database

_REQUEST = """
    INSERT INTO flow_outcomes.slot_request AS s (org, requested) VALUES (%(org)s, 1)
    ON CONFLICT (org) DO UPDATE SET requested = s.requested + 1
    RETURNING s.org, s.requested AS number
"""
_REQUESTED = """
    SELECT s.org, s.requested AS number FROM flow_outcomes.slot_request s WHERE s.requested > s.granted
"""
_GRANT = """
    UPDATE flow_outcomes.slot_request s SET granted = %(number)s
    FROM flow_outcomes.org o
    WHERE o.org = s.org AND s.org = %(org)s AND o.epoch = %(epoch)s AND s.granted < %(number)s
    RETURNING s.org
"""
_RETURN = """
    UPDATE flow_outcomes.slot_request s SET returned = greatest(s.returned, %(number)s) WHERE s.org = %(org)s
"""
_IS_GRANTED = "SELECT s.granted >= %(number)s FROM flow_outcomes.slot_request s WHERE s.org = %(org)s"
_IS_RETURNED = "SELECT s.returned >= %(number)s FROM flow_outcomes.slot_request s WHERE s.org = %(org)s"


class Slot(NamedTuple):
    """A request for a slot; an org's requests are numbered."""

    org: str
    number: int


async def request_slot(database: Database, org: str) -> Slot:
    """Request a slot of the org's owner.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    async with database.transaction() as connection:
        return (await connection.fetch_all(Slot, _REQUEST, {"org": org}))[0]


async def requested_slots(database: Database) -> list[Slot]:
    """The slots that were requested and not granted, the last one of each org.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    async with database.connection() as connection:
        return await connection.fetch_all(Slot, _REQUESTED)


async def grant_slot(database: Database, slot: Slot, epoch: int) -> bool:
    """Grant a slot that the owner leaves out from now on; whether ``epoch`` is still the org's.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    async with database.transaction() as connection:
        return bool(await connection.fetch_values(_GRANT, {**slot._asdict(), "epoch": epoch}))


async def return_slot(database: Database, slot: Slot) -> None:
    """Note that the slot is used, or no longer needed.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    async with database.transaction() as connection:
        await connection.execute(_RETURN, slot._asdict())


async def is_granted(database: Database, slot: Slot) -> bool:
    """Whether the owner leaves out the slot.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    async with database.connection() as connection:
        return any(await connection.fetch_values(_IS_GRANTED, slot._asdict()))


async def is_returned(database: Database, slot: Slot) -> bool:
    """Whether the slot may be used again by the owner.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    async with database.connection() as connection:
        return any(await connection.fetch_values(_IS_RETURNED, slot._asdict()))
