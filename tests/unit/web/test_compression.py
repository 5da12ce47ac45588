"""Which clients get a body as gzip, and what they unpack."""

from __future__ import annotations

import gzip

import pytest

from service.web.compression import SIZE_MIN, accepts_gzip, pack

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("header", "accepts"),
    [
        ("gzip, deflate, br", True),
        ("br;q=1.0, GZIP;q=0.8, *;q=0.1", True),
        ("gzip ; q=0.001", True),
        ("gzip;q=0", False),
        ("deflate, gzip; q=0.000", False),
        ("identity", False),
        ("x-gzip-like", False),
        ("", False),
    ],
)
def test_what_a_client_accepts(header: str, accepts: bool) -> None:
    """A weight of zero excludes gzip."""
    assert accepts_gzip(header) is accepts


def test_a_body_is_packed() -> None:
    """A long body is equal after unpacking, a short one is sent as it is; the same body gives the same bytes."""
    body = b"figures " * SIZE_MIN
    assert gzip.decompress(pack(body)) == body
    assert pack(body) == pack(body)
    assert len(pack(body)) < len(body) / 10
    assert pack(body[: SIZE_MIN - 1]) == b""
