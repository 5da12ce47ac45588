"""Parsers for the values of the section ``export``: the warehouse's location, and the catalog's properties."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import SecretStr

_NAMESPACE = re.compile(r"[a-z][a-z0-9_]{0,62}(\.[a-z][a-z0-9_]{0,62}){0,3}")
_BUCKETS = ("s3", "gs", "abfs", "abfss")
_EXPECTED = (
    "must be s3://BUCKET/PATH, gs://BUCKET/PATH, abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH"
    " or file:///PATH"
)


def warehouse_location(value: object) -> str:
    """Parse the location of a warehouse: a bucket or a folder, without a trailing slash."""
    if not isinstance(value, str):
        raise ValueError(_EXPECTED)  # noqa: TRY004 - pydantic collects only ValueError
    text = value.strip().rstrip("/")
    try:
        parts = urlsplit(text)
        host, password = parts.hostname, parts.password
    except ValueError:
        raise ValueError(_EXPECTED) from None
    folder = parts.scheme == "file" and not parts.netloc and parts.path.startswith("/")
    bucket = parts.scheme in _BUCKETS and host
    if not text.isprintable() or set("?#% ") & set(text) or not (folder or bucket):
        raise ValueError(_EXPECTED)
    if password is not None or ("@" in parts.netloc and not parts.scheme.startswith("abfs")):
        raise ValueError("must not contain credentials; they are read as the storage's own tools read them")
    return text


def namespace_name(value: object) -> str:
    """Parse the name of a namespace: lowercase names, with dots between them."""
    if not isinstance(value, str) or not _NAMESPACE.fullmatch(value):
        raise ValueError("must be names of lowercase letters, digits and underscores, with dots between them")
    return str(value)


def catalog_properties(value: object) -> object:
    """Parse a section of texts; YAML's numbers and booleans are taken as they are written.

    A text that may grant access becomes a secret.
    """
    if not isinstance(value, dict):
        return value
    texts: dict[str, str | SecretStr] = {}
    for name, each in value.items():
        if not isinstance(name, str) or not isinstance(each, str | int | float):
            raise ValueError("must be a section of texts")  # noqa: TRY004 - pydantic collects only ValueError
        text = str(each).lower() if isinstance(each, bool) else str(each)
        texts[name] = SecretStr(text) if is_secret(name) or "@" in text else text
    return texts


_SECRET_WORDS = ("secret", "password", "token", "credential", "key")


def is_secret(name: str) -> bool:
    """Whether a property of a catalog may grant access to something."""
    return any(word in name.lower() for word in _SECRET_WORDS)
