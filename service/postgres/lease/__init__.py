"""Which process works an org.

::

    lease           the lease as a worker sees it
    manager         acquires, renews and releases leases
    events          what a manager reports to its process
    rebalance       how daemons share the orgs
    org_state       the breaker and the rate-limit pause, stored with the lease
    owner_requests  what any process may request of an org's owner
"""

from service.postgres.lease.events import Acquired, Disconnected, LeaseEvent, Lost, Released, Requested
from service.postgres.lease.lease import Lease
from service.postgres.lease.manager import LeaseManager
from service.postgres.lease.org_state import note_breaker, note_pause

__all__ = [
    "Acquired",
    "Disconnected",
    "Lease",
    "LeaseEvent",
    "LeaseManager",
    "Lost",
    "Released",
    "Requested",
    "note_breaker",
    "note_pause",
]
