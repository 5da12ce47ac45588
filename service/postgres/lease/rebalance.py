"""How daemons share the orgs: one that holds fewer than another requests some of the other's.

The daemon that starts first acquires every free org. One that starts later enters requests in ``org_lease``, and
the owner releases these orgs once their scans in flight have ended. A daemon requests an org only where that makes
the two shares more equal, so no org moves back and forth.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import NamedTuple

from service.postgres.pool import Connection

RESERVED_FOR = 10.0  # seconds for which an org that was released on request is left to the requester


class _Other(NamedTuple):
    org: str
    owner: str | None
    requested: bool


async def request_share(
    connection: Connection, owner: str, held: Collection[str], wanted: Collection[str]
) -> None:
    """Request orgs of the daemon that holds most of the wanted ones: half of the difference to this one's share.

    Orgs that this process has requested, and orgs that nobody holds, count as its own: both are about to be.

    Args:
        connection: in autocommit mode.
        owner: this process's name.
        held: the orgs that it holds.
        wanted: the other orgs of its configuration.
    """
    others: dict[str, list[str]] = defaultdict(list)
    ours = len(held)
    for org, other, requested in await connection.fetch_all(
        _Other, _HELD_BY_OTHERS, {"orgs": list(wanted), "owner": owner}
    ):
        if other is None or requested:
            ours += 1
        else:
            others[other].append(org)
    most = max(others.values(), key=len, default=[])
    if share := most[: max(0, (len(most) - ours) // 2)]:
        await connection.execute(_REQUEST, {"orgs": share, "owner": owner})


_HELD_BY_OTHERS = """
    SELECT l.org, l.owner, l.wanted_by IS NOT DISTINCT FROM %(owner)s AS requested
    FROM flow_outcomes.org_lease l
    WHERE l.org = ANY (%(orgs)s) AND l.owner IS DISTINCT FROM %(owner)s
      AND (l.owner IS NULL OR l.expires_at > clock_timestamp())
    ORDER BY l.org
"""
_REQUEST = """
    UPDATE flow_outcomes.org_lease SET wanted_by = %(owner)s
    WHERE org = ANY (%(orgs)s) AND wanted_by IS DISTINCT FROM %(owner)s
"""
