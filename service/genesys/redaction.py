"""Keeps secrets out of every text that a server may have written."""

from __future__ import annotations

import base64
import re
from collections import deque

from service.telemetry import spellings

TEXT_MAX = 500
"""Characters of a server's text that go into an error."""
_REMEMBERED = 16
"""Secrets kept of each kind; renewed tokens must not push the client's secret out."""
_PREFIX = 8
"""Characters of a secret that betray it: a server that cuts its text short may cut a secret with it."""
_WHOLE_MIN = 8
"""Characters of a secret that nobody names a flow or an outcome by chance; a client secret has no fewer."""
_REPLACEMENT = "[redacted]"
_URL_SAFE = str.maketrans("+/", "-_")

_authorization = re.compile(r"(?i)\b(bearer|basic)(\s+|%20|\+)[A-Za-z0-9._~+/=%-]{6,}")


class Redactor:
    """Knows the secrets of one org, in the spellings in which they travel."""

    def __init__(self) -> None:
        self._tokens: deque[str] = deque(maxlen=_REMEMBERED)
        self._credentials: deque[str] = deque(maxlen=_REMEMBERED)
        self._known: list[str] = []

    def add_token(self, token: str) -> None:
        """Never let this token through."""
        self._remember(self._tokens, token)

    def add_credentials(self, client_id: str, client_secret: str) -> None:
        """Never let the secret through, nor the Basic header made of the two."""
        self._remember(self._credentials, client_secret)
        header = basic(client_id, client_secret)
        for each in (header, header.rstrip("="), header.rstrip("=").translate(_URL_SAFE)):
            self._remember(self._credentials, each)

    def clean(self, text: str, limit: int = TEXT_MAX) -> str:
        """The text without secrets, on one line, cut to ``limit`` characters."""
        for secret in self._known:
            text = text.replace(secret, _REPLACEMENT)
        for secret in self._known:  # after the whole ones: of one spelling another is the beginning
            text = _without(text, secret)
        text = _authorization.sub(rf"\1 {_REPLACEMENT}", text)
        text = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
        return text if len(text) <= limit else text[: limit - 1] + "…"

    def hide(self, text: str) -> str:
        """The text to the letter, but for whole secrets."""
        for secret in self._known:
            if len(secret) >= _WHOLE_MIN:
                text = text.replace(secret, _REPLACEMENT)
        return text

    def _remember(self, secrets: deque[str], secret: str) -> None:
        if secret not in secrets:
            secrets.append(secret)
            known = {each for one in (*self._tokens, *self._credentials) for each in spellings(one)}
            self._known = sorted(filter(None, known), key=len, reverse=True)


def basic(client_id: str, client_secret: str) -> str:
    """The credentials of a Basic authorization header (RFC 7617), UTF-8."""
    return base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()


def _without(text: str, secret: str) -> str:
    """The text with each telling part of the secret's beginning replaced."""
    head = secret[:_PREFIX]
    parts: list[str] = []
    begin = 0
    while (found := text.find(head, begin)) >= 0:
        end, at = found + len(head), len(head)
        while at < len(secret) and end < len(text) and text[end] == secret[at]:
            end, at = end + 1, at + 1
        parts += (text[begin:found], _REPLACEMENT)
        begin = end
    return "".join([*parts, text[begin:]])
