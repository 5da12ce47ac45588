"""The program as a process: start, loop, stop.

::

    daemon            start, main loop, shutdown
    reload            the configuration when its file is complete, and what it changes
    once              run what is due, then exit
    demo              the whole program with nothing to set up
    preflight         the checks behind ``check``
    preflight_public  those of the public API
    export_check      those of the export's catalog and warehouse
    figure_check      those of the stored figures
    export_loop       the daemon's exports
    suggestions       logs suggested aliases
    org_loop          one org in the daemon, with a loop for each job
    job_loop          one job of one org
    process           the pool, the leases and the workers of this process
    database          open or start the database, migrate its schema
    timers            APScheduler as a clock
    signals           signals as events

A name's module is imported when the name is first used: most commands need neither the web server nor the timers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.runtime.daemon import Daemon
    from service.runtime.database import apply_migrations, ensure_migrated, open_database
    from service.runtime.once import DATABASE_TIMEOUT, run_everything, run_once
    from service.runtime.process import Process

__all__ = [
    "DATABASE_TIMEOUT",
    "Daemon",
    "Process",
    "apply_migrations",
    "ensure_migrated",
    "open_database",
    "run_everything",
    "run_once",
]

_MODULES = {
    "DATABASE_TIMEOUT": "service.runtime.once",
    "Daemon": "service.runtime.daemon",
    "Process": "service.runtime.process",
    "apply_migrations": "service.runtime.database",
    "ensure_migrated": "service.runtime.database",
    "open_database": "service.runtime.database",
    "run_everything": "service.runtime.once",
    "run_once": "service.runtime.once",
}


def __getattr__(name: str) -> object:
    """Import the module of a name of ``__all__``."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
