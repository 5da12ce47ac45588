"""How long an org keeps its analytics data: ``GET /api/v2/analytics/dataretention/settings``.

The response is ``{"retentionDays": N}`` (official Python SDK 269.0.0: ``AnalyticsDataRetentionResponse``).
"""

from __future__ import annotations

import msgspec

from service.errors import InvalidResponseError
from service.genesys.dialect import ApiRequest, Call
from service.genesys.error_mapping import EndpointPolicy

PATH = "/api/v2/analytics/dataretention/settings"
PERMISSION = "analytics:dataRetention:view"
POLICY = EndpointPolicy(
    f"Analytics > Data Retention > View ({PERMISSION})", None, limit_headers=True, breaker_exempt=True
)
_DAYS_MAX = 36_600


async def read_retention_days(call: Call) -> int:
    """The days for which the org keeps data.

    Raises:
        InvalidResponseError: the response does not say so.
        ExtractionError: it cannot be read.
    """
    response = await call(ApiRequest("GET", PATH, policy=POLICY, once=True))
    try:
        document = msgspec.json.decode(response.body)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidResponseError("the retention's response is not JSON") from None
    days = document.get("retentionDays") if isinstance(document, dict) else None
    if not isinstance(days, (int, float)) or isinstance(days, bool) or days != int(days):
        raise InvalidResponseError("the response has no whole number in retentionDays")
    if not 1 <= days <= _DAYS_MAX:
        raise InvalidResponseError(f"the response's retentionDays are not from 1 to {_DAYS_MAX}")
    return int(days)
