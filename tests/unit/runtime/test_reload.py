"""Every key of an org takes effect at a reload."""

from __future__ import annotations

from service.config.sections import Org
from service.runtime.daemon import _CLIENT_KEYS

# Read where they are used, or passed on by OrgWorker.configure.
_APPLIED_WHILE_RUNNING = {
    "breaker",
    "concurrency",
    "flows",
    "page_size",
    "query_timeout",
    "requests_per_second",
    "timezone",
}


def test_each_key_of_an_org_is_applied() -> None:
    """Each key is applied to the running client or needs a new one; a new key must be listed here or there."""
    assert set(Org.model_fields) == {*_CLIENT_KEYS, *_APPLIED_WHILE_RUNNING}
