"""flow-outcomes: Genesys Cloud flow-outcome figures in PostgreSQL, complete and right."""

import time
from importlib.metadata import PackageNotFoundError, version

BEGAN = time.monotonic()
"""When this process began, on the monotonic clock: nothing of ours is imported before."""

try:
    __version__ = version("flow-outcomes")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"
