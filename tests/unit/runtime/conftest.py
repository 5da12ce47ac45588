"""The event loop with virtual time, as the client's tests have it."""

from tests.unit.genesys.conftest import in_virtual_time

__all__ = ["in_virtual_time"]
