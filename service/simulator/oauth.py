"""The token endpoint: client credentials over HTTP basic, as at ``login.{region}/oauth/token``."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from service.simulator.api_error import ApiError


class TokenError(Exception):
    """Ends a token request with a status and the OAuth error ``{"error", "error_description"}``."""

    def __init__(self, status: int, error: str, description: str) -> None:
        super().__init__(description)
        self.status = status
        self.error = error

    def body(self) -> dict[str, object]:
        """Return the JSON document of the response."""
        return {"error": self.error, "description": str(self), "error_description": str(self)}


@dataclass(frozen=True, slots=True)
class Credentials:
    """The content of an HTTP basic header."""

    client_id: str
    client_secret: str


def basic_credentials(header: str | None) -> Credentials | None:
    """Parse an Authorization header; None if it is not HTTP basic."""
    scheme, _, encoded = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client_id, colon, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return Credentials(client_id, secret) if colon else None


def check_grant(content_type: str, form: Mapping[str, object]) -> None:
    """Raise TokenError (400) if the request is not for client credentials."""
    if content_type != "application/x-www-form-urlencoded":
        raise TokenError(400, "invalid_request", "the body must be form-urlencoded")
    if form.get("grant_type") != "client_credentials":
        raise TokenError(400, "unsupported_grant_type", "grant_type must be client_credentials")


class Tokens:
    """The access tokens of all orgs. Times are seconds of one monotonic clock.

    Attributes:
        issued: how many tokens were issued.
    """

    def __init__(self) -> None:
        self._tokens: dict[str, tuple[str, float]] = {}
        self.issued = 0

    def issue(self, client_id: str, lifetime: float, now: float) -> str:
        """Issue a token to a client, valid for ``lifetime`` seconds; its older tokens stay valid."""
        token = secrets.token_urlsafe(48)
        self._tokens[token] = (client_id, now + lifetime)
        self.issued += 1
        return token

    def owner(self, header: str | None) -> str | None:
        """Return the client of a bearer token, expired or not; None if the token is unknown."""
        return self._tokens.get(_bearer(header), (None, 0.0))[0]

    def check(self, header: str | None, now: float) -> str:
        """Return the client id of a valid token; raises ApiError (401) for any other."""
        if not header:
            raise ApiError(401, "authentication.required", "No authentication bearer token specified")
        client_id, expires = self._tokens.get(_bearer(header), (None, 0.0))
        if client_id is None or now >= expires:
            raise ApiError(401, "bad.credentials", "Invalid login credentials.")
        return client_id

    def revoke(self, client_id: str | None = None) -> None:
        """Invalidate every token of a client, or of all clients."""
        for token, (owner, _) in self._tokens.items():
            if client_id in (None, owner):
                self._tokens[token] = (owner, float("-inf"))


def _bearer(header: str | None) -> str:
    scheme, _, token = (header or "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


def missing_permission(permission: str = "analytics:query:read") -> ApiError:
    """Build the error for a client whose role lacks a permission."""
    return ApiError(
        403,
        "missing.any.permissions",
        "Unable to perform the requested action. You must have at least one of the following permissions "
        f"assigned: [{permission}]",
    )
