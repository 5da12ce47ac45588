"""Removes an org's secrets from every text that a server may have written."""

from __future__ import annotations

import base64
import re
from collections import deque
from collections.abc import Iterable

from service.telemetry import SECRET_MIN, spellings

TEXT_MAX = 500
"""Characters of a server's text that an error keeps."""
_SECRETS_MAX = 16
"""Secrets kept of each kind, apart from each other: renewed tokens must not displace the client secret."""
_PREFIX = 8
"""Characters from a secret's start that are redacted too: a server that truncates a text may truncate a secret."""
_EXACT_MIN = 8
"""Characters of the shortest secret that ``redact`` replaces; a client secret has no fewer."""
_REPLACEMENT = "[redacted]"
_URL_SAFE = str.maketrans("+/", "-_")

_authorization = re.compile(r"(?i)\b(bearer|basic)(\s+|%20|\+)[A-Za-z0-9._~+/=%-]{6,}")


class Redactor:
    """Holds the secrets of one org in every encoding in which they may appear."""

    def __init__(self) -> None:
        self._tokens: deque[str] = deque(maxlen=_SECRETS_MAX)
        self._credentials: deque[str] = deque(maxlen=_SECRETS_MAX)
        self._of_proxies: deque[str] = deque()
        self._spellings: list[str] = []
        self._words: re.Pattern[str] | None = None  # spellings so short that they occur in ordinary words

    def add_token(self, token: str) -> None:
        """Redact this token from now on; one of fewer than ``SECRET_MIN`` characters as a complete word alone."""
        self._add(self._tokens, token)

    def add_credentials(self, client_id: str, client_secret: str) -> None:
        """Redact the secret, and the Basic authorization header of the two, from now on."""
        self._add(self._credentials, client_secret)
        header = basic(client_id, client_secret)
        for each in (header, header.rstrip("="), header.rstrip("=").translate(_URL_SAFE)):
            self._add(self._credentials, each)

    def add_proxy(self, secrets: Iterable[str]) -> None:
        """Redact a proxy's secrets from now on, but those so short that they occur in ordinary words."""
        for each in secrets:
            if len(each) >= SECRET_MIN:
                self._add(self._of_proxies, each)

    def redact(self, text: str) -> str:
        """The text with complete secrets replaced, and otherwise unchanged."""
        for secret in self._spellings:
            if len(secret) >= _EXACT_MIN:
                text = text.replace(secret, _REPLACEMENT)
        return text

    def redact_message(self, text: str, limit: int = TEXT_MAX) -> str:
        """The text on one line, at most ``limit`` characters, without secrets, parts of them, or credentials."""
        for secret in self._spellings:
            text = text.replace(secret, _REPLACEMENT)
        for secret in self._spellings:  # afterwards: one spelling may be the prefix of another
            text = _without_prefixes(text, secret)
        if self._words is not None:
            text = self._words.sub(_REPLACEMENT, text)
        text = _authorization.sub(rf"\1 {_REPLACEMENT}", text)
        text = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
        return text if len(text) <= limit else text[: limit - 1] + "…"

    def _add(self, secrets: deque[str], secret: str) -> None:
        if secret not in secrets:
            secrets.append(secret)
            secrets_now = (*self._tokens, *self._credentials, *self._of_proxies)
            known = {each for one in secrets_now for each in spellings(one)}
            by_length = sorted(filter(None, known), key=len, reverse=True)
            self._spellings = [each for each in by_length if len(each) >= SECRET_MIN]
            short = "|".join(map(re.escape, by_length[len(self._spellings) :]))
            self._words = re.compile(rf"(?<!\w)(?:{short})(?!\w)") if short else None


def basic(client_id: str, client_secret: str) -> str:
    """The credentials of a Basic authorization header (RFC 7617), in UTF-8."""
    return base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()


def _without_prefixes(text: str, secret: str) -> str:
    """The text with each prefix of the secret replaced, from ``_PREFIX`` characters on."""
    head = secret[:_PREFIX]
    parts: list[str] = []
    start = 0
    while (found := text.find(head, start)) >= 0:
        end, at = found + len(head), len(head)
        while at < len(secret) and end < len(text) and text[end] == secret[at]:
            end, at = end + 1, at + 1
        parts += (text[start:found], _REPLACEMENT)
        start = end
    return "".join([*parts, text[start:]])
