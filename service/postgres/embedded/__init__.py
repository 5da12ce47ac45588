"""A PostgreSQL of our own, from a wheel's binaries, in one folder.

::

    server    start and stop
    folder    whether a server runs in a folder, and its DSN
    binaries  the programs, and the user that runs them
"""

from service.postgres.embedded.server import Embedded

__all__ = [
    "Embedded",
]
