"""flow-outcomes: Genesys Cloud flow-outcome figures in PostgreSQL, complete and exact."""

import time

BEGAN = time.monotonic()
"""Start of this process in seconds of the monotonic clock; no other module of the program is imported before."""
