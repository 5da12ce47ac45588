"""A secret in a file, as editors and shells write it."""

from __future__ import annotations

from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from pathlib import Path

from service.config import values
from service.config.file_content import read_bytes


def read_secret(file: Path | None) -> tuple[str, str]:
    """The secret in a file, without the blanks around it, and its fault; one of the two is empty.

    The file is UTF-8, or what its byte order mark says: some editors and shells write one, and UTF-16.
    """
    if file is None:
        return "", "is required, or client_secret"
    try:
        content = read_bytes(file)
        encoding = "utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig"
        secret = content.decode(encoding).strip()
    except UnicodeDecodeError:
        return "", "the file must be UTF-8 text"
    except OSError as error:
        return "", f"the file cannot be read: {error.strerror or type(error).__name__}"
    fault = ""
    if not secret:
        fault = "the file is empty; it must contain the secret"
    elif not secret.isprintable():
        fault = "the file must contain only the secret, on one line"
    elif len(secret) < values.SECRET_MIN:
        fault = f"the secret in the file must have at least {values.SECRET_MIN} characters"
    return ("" if fault else secret), fault
