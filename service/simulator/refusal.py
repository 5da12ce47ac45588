"""An error as the API answers it."""

from __future__ import annotations


class Refusal(Exception):  # noqa: N818 - it is an answer, not a failure of the simulator
    """Ends a request with a status and a JSON body ``{"status", "code", "message"}``."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.context_id: str | None = None

    def body(self) -> dict[str, object]:
        """The JSON document that is answered."""
        told: dict[str, object] = {"status": self.status, "code": self.code, "message": self.message}
        if self.context_id is not None:  # the public API tells more
            told |= {"contextId": self.context_id, "details": [], "errors": []}
        return told


def bad_request(message: str, code: str = "bad.request") -> Refusal:
    """A 400."""
    return Refusal(400, code, message)
