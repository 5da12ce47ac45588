"""Orgs shared evenly: a process that has fewer than another asks it for some, in the row that says who holds what.

Who comes first takes whatever is free; so it is who comes later that asks, and the owner that hands over, when
what is in flight there has ended. An org is asked for only where that brings the two closer together, so that
nothing goes to and fro.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from service.postgres.pool import Connection

LEFT_TO_IT = 10.0  # seconds for which an org that was handed over is left to who asked for it


async def ask(connection: Connection, owner: str, held: Collection[str], wanted: Collection[str]) -> None:
    """Ask whoever holds the most of what we want for so much of it that we have alike; nothing where we do.

    What is on its way counts as ours: what was asked for, and what was given back and nobody has taken yet.

    Args:
        connection: in autocommit mode.
        owner: this process's name.
        held: the orgs that it holds.
        wanted: those that it would work too.
    """
    cursor = await connection.execute(
        "SELECT org, owner, wanted_by IS NOT DISTINCT FROM %(owner)s FROM flow_outcomes.org_lease"
        " WHERE org = ANY (%(orgs)s) AND owner IS DISTINCT FROM %(owner)s"
        " AND (owner IS NULL OR expires_at > clock_timestamp()) ORDER BY org",
        {"orgs": list(wanted), "owner": owner},
    )
    others: dict[str, list[str]] = defaultdict(list)
    ours = len(held)
    for org, other, asked in await cursor.fetchall():
        if other is None or asked:
            ours += 1
        else:
            others[other].append(org)
    most = max(others.values(), key=len, default=[])
    if some := most[: max(0, (len(most) - ours) // 2)]:
        await connection.execute(
            "UPDATE flow_outcomes.org_lease SET wanted_by = %(owner)s WHERE org = ANY (%(orgs)s)"
            " AND wanted_by IS DISTINCT FROM %(owner)s",
            {"orgs": some, "owner": owner},
        )
