"""What ``/metrics`` shows, in the format that the client accepts."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder
from prometheus_client.metrics_core import InfoMetricFamily, Metric
from prometheus_client.registry import Collector

Encoder = Callable[[Collector], bytes]

_PROCESS = ProcessCollector(registry=None)


class Scrape(Collector):
    """Every metric of one scrape: the version, this process, and the given collectors.

    Args:
        collectors: what the events counted, and the status as gauges.
    """

    def __init__(self, *collectors: Collector) -> None:
        self._collectors = collectors

    def collect(self) -> Iterator[Metric]:
        """Every metric with its labels; each name once."""
        yield _build_info()
        yield from _PROCESS.collect()
        for each in self._collectors:
            yield from each.collect()


def negotiate(accept: str) -> tuple[Encoder, str]:
    """Choose the format for an ``Accept`` header: OpenMetrics, or Prometheus' text, which is the default.

    Args:
        accept: the header, or empty.

    Returns:
        The encoder, and the ``Content-Type`` of what it returns.
    """
    if accept.isascii():  # the content type repeats the version
        try:
            return choose_encoder(accept)
        except TypeError:  # it compares a version that is not a number with a number
            pass
    return generate_latest, CONTENT_TYPE_PLAIN_0_0_4


def _build_info() -> InfoMetricFamily:
    try:
        installed = version("flow-outcomes")
    except PackageNotFoundError:  # a checkout that is not installed
        installed = "0+unknown"
    labels = {"version": installed, "python_version": platform.python_version()}
    return InfoMetricFamily("flow_outcomes_build", "The version of this process.", value=labels)
