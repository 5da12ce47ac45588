"""Error responses of the API."""

from __future__ import annotations


class ApiError(Exception):
    """Ends a request with a status and a JSON body ``{"status", "code", "message"}``."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.context_id: str | None = None

    def body(self) -> dict[str, object]:
        """Return the JSON document of the response."""
        body: dict[str, object] = {"status": self.status, "code": self.code, "message": self.message}
        if self.context_id is not None:
            body |= {"contextId": self.context_id, "details": [], "errors": []}
        return body


def bad_request(message: str, code: str = "bad.request") -> ApiError:
    """Build a 400."""
    return ApiError(400, code, message)
