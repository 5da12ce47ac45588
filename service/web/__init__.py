"""Health, metrics, the status and the page over HTTP. Nothing here writes.

::

    server          the paths, their headers and limits
    connection      a client's connection, its memory bounded
    outbox          large bodies, piece by piece
    endpoints       what the page's script requests
    parameters      what a request may contain
    status_cache    the status, read from the database at most every few seconds
    response_cache  responses kept for a moment
    gauges          the status as metrics
    page            the status as a table, which the page's script replaces
    coverage        a letter for each day of a job
    figures         a day, a flow over time, what changed
    overview        limits, queues, what is still to come
    assets          the page's own files
"""

from service.web.gauges import Load
from service.web.server import WebServer

__all__ = [
    "Load",
    "WebServer",
]
