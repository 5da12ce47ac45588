"""The configuration file that ``flow-outcomes init`` writes."""

from __future__ import annotations

from datetime import date

_DSN = """\
  dsn: postgresql://outcomes@localhost/outcomes   # with a password: USER:PASSWORD@
  # embedded: ./flow-outcomes-data   # or: a PostgreSQL that the program starts, with its data in this folder
"""
_EMBEDDED = """\
  embedded: {folder}   # a PostgreSQL that the program starts, with its data in this folder
  # dsn: postgresql://outcomes@localhost/outcomes   # or: a server of yours; with a password: USER:PASSWORD@
"""
_FILE = """\
# flow-outcomes. Edit region, client_id and client_secret, then:
#
#   flow-outcomes check    checks the setup and says how to fix what is wrong
#   flow-outcomes run      starts the daemon; its page is at http://127.0.0.1:8080/
#
# `flow-outcomes config show` prints every key with its value, `flow-outcomes config schema` a JSON Schema for
# editors. Each value is also an environment variable, such as FLOW_OUTCOMES_ORGS__ACME__CLIENT_SECRET.

database:
{database}
http:
  host: 127.0.0.1            # health, metrics and the page are served to this machine only
  port: 8080

log:
  level: info                # debug | info | warning | error
  format: auto               # console on a terminal, json elsewhere

orgs:
  acme:                      # your name for the org: lowercase letters, digits and underscores
    api: flow-aggregates     # Genesys Cloud's public API; or query-builder, behind a gateway that has it
    region: mypurecloud.com  # the domain of your region, or its AWS name such as eu-central-1
    # Admin > Integrations > OAuth, grant type Client Credentials. The role needs analytics:flowAggregate:view,
    # architect:flow:view and architect:flowOutcome:view, for all divisions.
    client_id: put-the-client-id-here
    client_secret: put-the-client-secret-here
    # client_secret_file: /run/secrets/acme   # instead of client_secret; read for each token
    timezone: UTC            # the org's reporting time zone, such as Europe/Berlin
    flows: []                # flow ids; empty: all flows

jobs:
  daily:                     # one row per flow, outcome and day
    window: day
    granularity: daily       # hourly | daily | monthly | auto
    since: {since}        # the first day to load; a duration such as P90D moves with today
  # hourly:                  # a second job: by the hour, for the last 30 days
  #   window: day
  #   granularity: hourly
  #   since: P30D
"""


DATA_FOLDER = "./flow-outcomes-data"


def starting_configuration(today: date, *, embedded: bool, folder: str = DATA_FOLDER) -> str:
    """A commented configuration for one org on the public API, valid as it is.

    Args:
        today: the job begins a year before the first day of its month.
        embedded: use the embedded database instead of a server.
        folder: where the embedded database keeps its data.
    """
    since = today.replace(year=today.year - 1, day=1)
    database = _EMBEDDED.format(folder=folder) if embedded else _DSN
    return _FILE.format(database=database, since=since.isoformat())
