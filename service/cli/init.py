"""``flow-outcomes init``: writes a commented configuration to start from."""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path

from service.cli.parser import CONFIG_FILE, CONFIG_VARIABLE
from service.cli.text_encoding import path
from service.config.starting import DATA_FOLDER, starting_configuration
from service.errors import ConfigError, Fault
from service.postgres.embedded.binaries import server_user
from service.telemetry import printable

SYSTEM_FOLDER = "/var/lib/flow-outcomes"
_OWNER_ONLY = 0o600  # the file will contain a secret


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    file: Path = arguments.file or path(os.environ.get(CONFIG_VARIABLE) or str(CONFIG_FILE))
    content = starting_configuration(
        datetime.now(UTC).date(), embedded=arguments.embedded, folder=_data_folder(file.parent)
    )
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    except FileExistsError:
        raise ConfigError([Fault(str(file), "exists already; give another FILE, or remove it first")]) from None
    except OSError as error:
        raise ConfigError([Fault(str(file), f"cannot be written: {error.strerror}")]) from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(content)
    except OSError as error:
        file.unlink(missing_ok=True)
        raise ConfigError([Fault(str(file), f"cannot be written: {error.strerror}")]) from None
    option = "" if file == CONFIG_FILE else f" --config {file}"
    print(printable(f"wrote {file}: edit region, client_id and client_secret, then 'flow-outcomes check{option}'"))
    return 0


def _data_folder(folder: Path) -> str:
    """Where an embedded PostgreSQL keeps its data: beside the file, unless its user cannot enter that folder.

    PostgreSQL does not run as root, so for root another user runs it, which cannot enter root's home.
    """
    if os.geteuid() == 0 and server_user(folder).blocked(folder.resolve()):
        return SYSTEM_FOLDER
    return DATA_FOLDER
