"""flow-outcomes: Genesys Cloud flow-outcome figures in PostgreSQL, complete and right."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("flow-outcomes")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"
