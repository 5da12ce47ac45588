"""The certificates of a PEM file with certificate authorities."""

from __future__ import annotations

import ssl
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from pathlib import Path

from service.config.file_content import read_bytes

_EXPECTED = "must be a PEM file with the certificate of a certificate authority"


def read_certificates(file: Path) -> tuple[str, str]:
    """The certificates in a file, as PEM, and the file's fault; one of the two is empty.

    Comments in any encoding are ignored.
    """
    try:
        content = read_bytes(file)
    except OSError as error:
        return "", f"the file cannot be read: {error.strerror or type(error).__name__}"
    encoding = "utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "ascii"
    text = content.decode(encoding, "ignore").encode("ascii", "ignore").decode()
    if "-----BEGIN " not in text:
        return "", f"{_EXPECTED}; convert a DER file with openssl x509 -inform der -in FILE -out FILE.pem"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        return "", f"{_EXPECTED}; it has none, or one that is damaged"
    return text, ""
