"""Checks of an org on the flow-aggregates API beyond its query: names, divisions, how long it keeps its data."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from service.config import Job, Org
from service.errors import ExtractionError, ForbiddenError
from service.genesys import (
    FLOW_NAMES,
    RETENTION_PERMISSION,
    GenesysClient,
    Listed,
    NameList,
    count_names,
    list_names,
    permitted_divisions,
    read_retention_days,
)
from service.plan.retention import jobs_before_limit
from service.telemetry import counted

FLOW_PAGES = 10
"""Pages of flows whose divisions are compared with the role's; a page has a hundred."""
NAMES_SHOWN = 10


class Remark(NamedTuple):
    """The result of one check that never fails: a warning where it has a fix.

    Attributes:
        subject: what was checked.
        detail: what was found.
        fix: what to do about it; empty where nothing is to be done.
    """

    subject: str
    detail: str
    fix: str = ""


async def check_flows_and_divisions(client: GenesysClient) -> list[Remark]:
    """Whether the flows can be listed, and whether the role sees the figures of each."""
    flows: dict[str, Listed] | None = None
    try:
        flows = await list_names(FLOW_NAMES, client.call, FLOW_PAGES)
        names = Remark("flow names", counted(len(flows), "name"))
    except ExtractionError as error:
        names = _without_names("flow names", FLOW_NAMES, error)
    return [names, await _check_divisions(client, flows or {})]


async def _check_divisions(client: GenesysClient, flows: Mapping[str, Listed]) -> Remark:
    try:
        permitted = await permitted_divisions(client.call)
    except ExtractionError as error:
        fix = (
            "check that the role is assigned for all divisions: figures of others are missing, and nothing says so"
        )
        return Remark("divisions", f"not known: {error}", fix)
    names = sorted(permitted.names.values())
    detail = f"the role sees {counted(len(names), 'division')}: {_some(names)}"
    others = {
        flow.division_id: flow.division_name or flow.division_id
        for flow in flows.values()
        if flow.division_id is not None and flow.division_id not in permitted.names
    }
    fix = "assign the role for all divisions: figures of others are missing, and nothing else says so"
    if others:
        return Remark("divisions", f"{detail}; not those of other flows: {_some(sorted(others.values()))}", fix)
    if permitted.are_all is False:
        return Remark("divisions", f"{detail}; the org has others", fix)
    return Remark("divisions", detail)


async def check_names(subject: str, listing: NameList, client: GenesysClient) -> Remark:
    """Whether a list of names can be read; without it the ids serve as names."""
    try:
        count = await count_names(listing, client.call)
    except ExtractionError as error:
        return _without_names(subject, listing, error)
    return Remark(subject, f"the first page has {counted(count, 'name')}")


def _without_names(subject: str, listing: NameList, error: ExtractionError) -> Remark:
    if isinstance(error, ForbiddenError):
        detail = f"names cannot be read: {listing.permission} is missing; the ids serve as names"
        return Remark(subject, detail, f"give the OAuth client's role {listing.permission} in every division")
    return Remark(subject, f"names cannot be read: {error}; the ids serve as names", "run the check again")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (", …" if len(names) > NAMES_SHOWN else "")


async def check_retention(org: Org, jobs: Collection[Job], client: GenesysClient, now: datetime) -> Remark:
    """How long the org keeps its data, and which jobs begin before that."""
    if org.retention is not None:
        kept, source = org.retention, f"orgs.{org.name}.retention"
    else:
        try:
            kept, source = timedelta(days=await read_retention_days(client.call)), "the API"
        except ExtractionError as error:
            fix = f"give the OAuth client's role {RETENTION_PERMISSION}, or set orgs.{org.name}.retention"
            return Remark("retention", f"not known: {error}", fix)
    detail = f"data is kept for {counted(kept.days, 'day')}, says {source}"
    if early := jobs_before_limit(org, jobs, kept, now):
        fix = "set since to a later time: what lies before the limit is returned partially, or not at all"
        return Remark("retention", "; ".join([detail, *early]), fix)
    return Remark("retention", detail)
