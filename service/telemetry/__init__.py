"""What is reported of the program: its log, its metrics, its progress.

::

    events         every event: its level, and the metrics that it counts in
    logs           the form of a log line; bounds and redaction
    progress_bar   the progress of a command
    breaker_state  an org's breaker, stored where other processes can read it
"""

from service.telemetry.breaker_state import BreakerStateWriter
from service.telemetry.events import Emit, Reporter, Warned
from service.telemetry.logs import REDACTED, configure, printable, redacted, register_secret, spellings

__all__ = [
    "REDACTED",
    "BreakerStateWriter",
    "Emit",
    "Reporter",
    "Warned",
    "configure",
    "printable",
    "redacted",
    "register_secret",
    "spellings",
]
