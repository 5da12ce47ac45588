"""What people and machines ask over HTTP: alive, ready, figures to watch, the status. Nothing here writes.

::

    server     the paths, their headers and limits
    watch      the database, looked at seldom and never for long
    gauges     the status as metrics
    page       the page: the status as a table, which the page's script goes on from
    endpoints  what that script asks for
    parameters what a request may ask for
    answers    what was answered a moment ago
    calendar   a letter for each day of a job
    figures    a day, a flow over time, what changed
    now        limits, queues, what is still to come
    assets     the page's own files
"""

from service.web.server import WebServer

__all__ = ["WebServer"]
