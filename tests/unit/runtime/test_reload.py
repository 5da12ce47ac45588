"""That no key of an org is forgotten at a reload."""

from __future__ import annotations

from service.config.sections import Org
from service.runtime.daemon import _CLIENT_KEYS

# Read anew where they are used, or handed on by OrgWorker.configure.
_WHILE_IT_WORKS = {
    "breaker",
    "concurrency",
    "flows",
    "page_size",
    "query_timeout",
    "requests_per_second",
    "timezone",
}


def test_each_key_of_an_org_is_applied() -> None:
    """To the client at work, or by another client; a new key has to say which."""
    assert set(Org.model_fields) == {*_CLIENT_KEYS, *_WHILE_IT_WORKS}
