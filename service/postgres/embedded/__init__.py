"""The embedded PostgreSQL: the binaries of a wheel, and the data in one folder.

::

    server    start and stop
    folder    whether a server runs in a folder, and its DSN
    binaries  the programs, and the user that runs them
"""

from service.postgres.embedded.folder import holds_cluster, running_dsn
from service.postgres.embedded.server import AlreadyRunningError, Embedded

__all__ = [
    "AlreadyRunningError",
    "Embedded",
    "holds_cluster",
    "running_dsn",
]
