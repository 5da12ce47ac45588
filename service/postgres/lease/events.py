"""The events of a ``LeaseManager``, in the order in which they happen."""

from __future__ import annotations

from dataclasses import dataclass

from service.postgres.lease.lease import Lease


@dataclass(frozen=True)
class Acquired:
    """This process holds the org from now on."""

    lease: Lease


@dataclass(frozen=True)
class Released:
    """This process has given the org up; another one may acquire it."""

    org: str


@dataclass(frozen=True)
class Lost:
    """The lease ended without a release: another process took the org over, or the connection was lost."""

    org: str


@dataclass(frozen=True)
class Requested:
    """Another process, which holds fewer orgs, requests this one. Repeated with each renewal until its release."""

    org: str


@dataclass(frozen=True)
class Disconnected:
    """The manager's connection was lost. A ``Lost`` for each org that it held comes first.

    Attributes:
        storage_problem: why nothing can be stored, where the database answers and its disk is full; or empty.
    """

    storage_problem: str = ""


LeaseEvent = Acquired | Released | Lost | Requested | Disconnected
