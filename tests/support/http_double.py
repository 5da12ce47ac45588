"""aioresponses for aiohttp 3.14, whose responses need the writer of their request, which aioresponses omits."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

from aiohttp import ClientResponse
from aioresponses import CallbackResult, aioresponses, core

__all__ = ["CallbackResult", "aioresponses"]


class UnsentResponse(ClientResponse):
    """A response to a request that was never written."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:  # noqa: ANN401 - arguments of aiohttp
        settings.setdefault("stream_writer", SimpleNamespace(output_size=0))
        super().__init__(*arguments, **settings)


core.ClientResponse = UnsentResponse  # type: ignore[attr-defined]  # its own import, which it does not re-export
# It records a deep copy of every request, whose trace context refers to the client and its event loop.
core.copy = SimpleNamespace(deepcopy=copy.copy)  # type: ignore[attr-defined, assignment]
