"""Page tokens: opaque, bound to one query, valid for a limited time."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from service.simulator.api_error import ApiError, bad_request
from service.simulator.pages import Position, Scan


@dataclass(frozen=True, slots=True)
class Cursor:
    """What a token stands for: a scan, a position in it, and the number of the page it fetches, from 2."""

    scan: Scan
    position: Position
    page: int
    expires: float


class Cursors:
    """An org's page tokens.

    Args:
        lifetime: seconds for which a token is valid.
        expired_status: status of the response to an expired token, 410 or 400.

    A token may be redeemed more than once and returns the same page each time, so that a client can retry after a
    broken connection. Times are seconds of one monotonic clock.
    """

    def __init__(self, lifetime: float = 600.0, expired_status: int = 410) -> None:
        self._lifetime = lifetime
        self._expired_status = expired_status
        self._cursors: dict[str, Cursor] = {}

    def issue(self, scan: Scan, position: Position, page: int, now: float) -> str:
        """Issue a token for the page with this number, which begins at ``position``."""
        # Characters that a client must not escape, strip or split at.
        token = f"{secrets.token_urlsafe(24)}+/ü=="
        self._cursors[token] = Cursor(scan, position, page, now + self._lifetime)
        scan.tokens.append(token)
        return token

    def redeem(self, token: str, digest: str, now: float) -> Cursor:
        """Return the cursor of a token.

        Raises:
            ApiError: ``invalid.pageToken`` (400) if the token is unknown or belongs to another query,
                ``cursor.expired`` (410 or 400) if it has expired.
        """
        cursor = self._cursors.get(token)
        if cursor is None:
            raise bad_request("The page token is not valid", "invalid.pageToken")
        if cursor.scan.digest != digest:
            raise bad_request("The page token belongs to another query", "invalid.pageToken")
        if now >= cursor.expires:
            raise self.expired()
        return cursor

    def page_of(self, token: str) -> int:
        """Return the number of the page that a token fetches, from 2; 1 if the token is unknown."""
        cursor = self._cursors.get(token)
        return cursor.page if cursor else 1

    def expired(self) -> ApiError:
        """Build the error for an expired token."""
        return ApiError(
            self._expired_status, "cursor.expired", "The cursor has expired; begin again without pageToken"
        )

    def sweep(self, now: float) -> None:
        """Delete the tokens that expired an hour ago or earlier."""
        stale = [token for token, cursor in self._cursors.items() if now >= cursor.expires + 3600]
        for token in stale:
            del self._cursors[token]
