"""Page tokens: opaque, bound to their query, and good for a while."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from service.simulator.pages import Position, Scan
from service.simulator.refusal import Refusal, bad_request


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a token leads: a scan, a position in it, and the number of the page that it fetches, from 2."""

    scan: Scan
    position: Position
    page: int
    expires: float


class Cursors:
    """An org's page tokens.

    Args:
        lifetime: seconds for which a token is good.
        expired_status: how an expired one is answered, 410 or 400.

    A token may be redeemed more than once, and leads to the same page again: a client whose connection broke may
    ask again. Times are seconds of one monotonic clock.
    """

    def __init__(self, lifetime: float = 600.0, expired_status: int = 410) -> None:
        self._lifetime = lifetime
        self._expired_status = expired_status
        self._known: dict[str, Cursor] = {}

    def issue(self, scan: Scan, position: Position, page: int, now: float) -> str:
        """A token that leads to ``page``, which begins at ``position``."""
        # A few characters that a client must neither escape, strip nor take apart.
        token = f"{secrets.token_urlsafe(24)}+/ü=="
        self._known[token] = Cursor(scan, position, page, now + self._lifetime)
        scan.tokens.append(token)
        return token

    def redeem(self, token: str, digest: str, now: float) -> Cursor:
        """The cursor of a token.

        Raises:
            Refusal: ``invalid.pageToken`` (400) for a token that is unknown or belongs to another query,
                ``cursor.expired`` (410 or 400) for one that is too old.
        """
        cursor = self._known.get(token)
        if cursor is None:
            raise bad_request("The page token is not valid", "invalid.pageToken")
        if cursor.scan.digest != digest:
            raise bad_request("The page token belongs to another query", "invalid.pageToken")
        if now >= cursor.expires:
            raise self.expired()
        return cursor

    def page_of(self, token: str) -> int:
        """The number of the page that a token leads to, from 2; 1 for an unknown one."""
        cursor = self._known.get(token)
        return cursor.page if cursor else 1

    def expired(self) -> Refusal:
        """The answer to a token that is too old."""
        return Refusal(
            self._expired_status, "cursor.expired", "The cursor has expired; begin again without pageToken"
        )

    def sweep(self, now: float) -> None:
        """Forget what expired an hour ago and more."""
        stale = [token for token, cursor in self._known.items() if now >= cursor.expires + 3600]
        for token in stale:
            del self._known[token]
