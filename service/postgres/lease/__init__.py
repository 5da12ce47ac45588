"""Which process works an org.

::

    lease      the lease as a worker sees it
    manager    acquires, renews and releases leases
    rebalance  how daemons share the orgs
    breaker    the breaker's state beside the lease
"""

from service.postgres.lease.breaker import note_breaker
from service.postgres.lease.lease import Lease
from service.postgres.lease.manager import LeaseManager

__all__ = [
    "Lease",
    "LeaseManager",
    "note_breaker",
]
