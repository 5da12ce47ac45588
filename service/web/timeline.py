"""What happened lately, newest first: the page writes each as a sentence, in the org's time zone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.config import Config
from service.model import instant
from service.postgres.pool import Connection
from service.postgres.queries import dashboard, timeline
from service.telemetry import Warned

MAX_EVENTS = 60
_MAX_OF_KIND = 30

Document = dict[str, Any]


async def document(
    connection: Connection, config: Config, orgs: Sequence[str], warned: Sequence[Warned]
) -> Document:
    """Restatements, renames, completed windows, takeovers and warnings.

    Raises:
        DatabaseUnavailableError, SchemaError: as the connection.
    """
    restated = await timeline.restated_scans(connection, orgs, _MAX_OF_KIND)
    renamed = await dashboard.last_renames(connection, orgs, _MAX_OF_KIND)
    timezones = {name: org.timezone for name, org in config.orgs.items() if name in orgs}
    completed = await timeline.completed_windows(connection, timezones, _MAX_OF_KIND)
    owners = await timeline.owners(connection, orgs)
    events: list[Document] = [
        *({"kind": "restated", **_instants(each._asdict())} for each in restated),
        *({"kind": "renamed", **_instants(each._asdict() | {"at": each.renamed_at})} for each in renamed),
        *({"kind": "complete", **_instants(each._asdict())} for each in completed),
        *({"kind": "owner", **_instants(each._asdict())} for each in owners),
        *_warnings([each for each in warned if each.org is None or each.org in orgs]),
    ]
    events.sort(key=lambda each: each["at"], reverse=True)
    return {
        "events": events[:MAX_EVENTS],
        "timezones": timezones,
    }


def _instants(fields: dict[str, Any]) -> Document:
    return {name: instant(value) if hasattr(value, "isoformat") else value for name, value in fields.items()}


def _warnings(warned: Sequence[Warned]) -> list[Document]:
    """The last warning of each event, org and job, with how many were kept."""
    last: dict[tuple[str, str | None, str | None], Document] = {}
    for each in reversed(warned):
        key = (each.event, each.org, each.job)
        warning = last.setdefault(key, {"kind": "warning", **each._asdict(), "times": 0})
        warning["times"] += 1
    return list(last.values())
