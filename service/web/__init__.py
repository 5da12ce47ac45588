"""Health, metrics, the status and the page over HTTP; read-only.

::

    server            the paths, their headers and limits
    daemon_view       what the server reads of the daemon
    connection        a client's connection, its memory bounded
    connection_limit  how many connections there may be
    hosts             the host names that are answered
    outbox            large bodies, sent in pieces
    endpoints         what the page's script requests
    parameters        the query string of a request, validated
    status_cache      the status, read from the database at most every few seconds
    response_cache    responses of the endpoints, kept for a moment
    gauges            the status as metrics
    scrape            every metric, in the format that the client accepts
    page              the page's document, with the status as a table for browsers without a script
    overview          the state of every org: progress, limits in use, queues
    problems          what is missing, grouped by cause, with the command that would fetch it
    week              every flow, this week beside the last
    kept_weeks        the same, while an org's figures have not changed
    flow              one flow over time, and what differs between two instants
    figures_csv       figures as a file
    coverage          the calendar: a letter for each day of a job
    day               one day of a job
    timeline          what happened lately
    kept_suggestions  suggested aliases, while an org's figures and aliases have not changed
    assets            the page's own files
    compression       bodies as gzip, compressed once for all clients
"""

from service.web.connection_limit import raise_descriptor_limit
from service.web.daemon_view import DaemonView, Load
from service.web.server import WebServer

__all__ = [
    "DaemonView",
    "Load",
    "WebServer",
    "raise_descriptor_limit",
]
