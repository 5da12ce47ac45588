"""What people and machines ask over HTTP: alive, ready, figures to watch, the status. Nothing here writes.

::

    server     the paths, their headers and limits
    watch      the database, looked at seldom and never for long
    gauges     the status as metrics
    page       the status as a page
"""

from service.web.server import WebServer

__all__ = ["WebServer"]
