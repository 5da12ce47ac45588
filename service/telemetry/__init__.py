"""What the program reports of itself: its log, its metrics, its progress.

::

    events         every event with its level; how one is reported
    reporter       hands events to the metrics, other subscribers and the log
    metrics        what events add to the metrics
    log_sink       where log lines go; a thread writes them
    logs           the form of a log line; bounds and redaction
    progress_bar   the progress of a command
    traces         spans for OpenTelemetry
    otel           its SDK; imported only where the environment says so
    breaker_state  an org's breaker, stored where other processes can read it
    text           text for people
"""

from service.telemetry.breaker_state import BreakerStateWriter
from service.telemetry.events import Emit, Event
from service.telemetry.logs import REDACTED, SECRET_MIN, configure, redacted, register_secret, spellings
from service.telemetry.reporter import Reporter, Subscriber, Warned
from service.telemetry.text import counted, printable

__all__ = [
    "REDACTED",
    "SECRET_MIN",
    "BreakerStateWriter",
    "Emit",
    "Event",
    "Reporter",
    "Subscriber",
    "Warned",
    "configure",
    "counted",
    "printable",
    "redacted",
    "register_secret",
    "spellings",
]
