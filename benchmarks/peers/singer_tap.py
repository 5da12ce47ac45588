"""A Singer tap as the SDK's documentation recommends: ``python -m benchmarks.peers.singer_tap URL DAYS``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from singer_sdk import Stream, Tap
from singer_sdk import typing as th

from benchmarks.peers.pages import rows


class FlowOutcome(Stream):
    """The stream of outcomes."""

    name = "flow_outcome"
    primary_keys = ("flow_id", "bucket_start", "outcome_name")
    schema = th.PropertiesList(
        th.Property("flow_id", th.StringType),
        th.Property("bucket_start", th.DateTimeType),
        th.Property("bucket_end", th.DateTimeType),
        th.Property("outcome_name", th.StringType),
        th.Property("outcome_count", th.IntegerType),
        th.Property("outcome_percentage", th.NumberType),
    ).to_dict()

    def get_records(self, context: Any) -> Iterable[dict[str, Any]]:  # noqa: ANN401, ARG002 - the SDK's signature
        """Yield each row."""
        for page in rows(self.config["url"], self.config["days"]):
            yield from page


class FlowOutcomes(Tap):
    """The benchmark's source as a tap."""

    name = "tap-flow-outcomes"
    config_jsonschema = th.PropertiesList(
        th.Property("url", th.StringType, required=True), th.Property("days", th.IntegerType, required=True)
    ).to_dict()

    def discover_streams(self) -> list[Stream]:
        """The stream of outcomes."""
        return [FlowOutcome(self)]


if __name__ == "__main__":
    FlowOutcomes(config={"url": sys.argv[1], "days": int(sys.argv[2])}).sync_all()
