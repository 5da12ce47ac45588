"""The token endpoint: client credentials over HTTP basic, as ``login.{region}/oauth/token`` takes them."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from service.simulator.refusal import Refusal


class TokenRefusal(Exception):  # noqa: N818 - it is an answer, not a failure of the simulator
    """Ends a token request with a status and the OAuth error ``{"error", "error_description"}``."""

    def __init__(self, status: int, error: str, description: str) -> None:
        super().__init__(description)
        self.status = status
        self.error = error

    def body(self) -> dict[str, object]:
        """The JSON document that is answered."""
        return {"error": self.error, "description": str(self), "error_description": str(self)}


@dataclass(frozen=True, slots=True)
class Credentials:
    """What an HTTP basic header says."""

    client_id: str
    client_secret: str


def basic_credentials(header: str | None) -> Credentials | None:
    """Client id and secret of an Authorization header; None where it is not HTTP basic."""
    scheme, _, encoded = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client_id, colon, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return Credentials(client_id, secret) if colon else None


def check_grant(content_type: str, form: Mapping[str, object]) -> None:
    """TokenRefusal (400) where the request is not one for client credentials."""
    if content_type != "application/x-www-form-urlencoded":
        raise TokenRefusal(400, "invalid_request", "the body must be form-urlencoded")
    if form.get("grant_type") != "client_credentials":
        raise TokenRefusal(400, "unsupported_grant_type", "grant_type must be client_credentials")


class Tokens:
    """The access tokens of all orgs. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, float]] = {}
        self.issued = 0

    def issue(self, client_id: str, lifetime: float, now: float) -> str:
        """A fresh token of a client, good for ``lifetime`` seconds; older ones stay good."""
        token = secrets.token_urlsafe(48)
        self._known[token] = (client_id, now + lifetime)
        self.issued += 1
        return token

    def owner(self, header: str | None) -> str | None:
        """The client that a bearer token was given to, expired or not; None for an unknown one."""
        return self._known.get(_bearer(header), (None, 0.0))[0]

    def check(self, header: str | None, now: float) -> str:
        """The client id of a good token; Refusal (401) for any other."""
        if not header:
            raise Refusal(401, "authentication.required", "No authentication bearer token specified")
        client_id, expires = self._known.get(_bearer(header), (None, 0.0))
        if client_id is None or now >= expires:
            raise Refusal(401, "bad.credentials", "Invalid login credentials.")
        return client_id

    def revoke(self, client_id: str | None = None) -> None:
        """Make every token of a client, or of all, worthless from now on."""
        for token, (owner, _) in self._known.items():
            if client_id in (None, owner):
                self._known[token] = (owner, float("-inf"))


def _bearer(header: str | None) -> str:
    scheme, _, token = (header or "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


def missing_permission(permission: str = "analytics:query:read") -> Refusal:
    """The answer to a client whose role lacks a permission."""
    return Refusal(
        403,
        "missing.any.permissions",
        "Unable to perform the requested action. You must have at least one of the following permissions "
        f"assigned: [{permission}]",
    )
