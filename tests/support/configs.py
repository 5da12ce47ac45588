"""Configurations for tests: the smallest valid one, changed ones, and their faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from service.config import config_from
from service.errors import ConfigError

SECRET = "hunter2-very-secret"

MINIMAL = f"""
database: {{dsn: postgresql://outcomes@db/outcomes}}
orgs:
  acme: {{region: mypurecloud.com, client_id: me, client_secret: {SECRET}}}
jobs:
  daily: {{since: 2024-01-01}}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def tree(**changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """The minimal configuration with changes, given as ``orgs__acme__page_size=1``."""
    minimal: dict[str, Any] = yaml.safe_load(MINIMAL)
    for key, value in changes.items():
        *path, last = key.split("__")
        at = minimal
        for name in path:
            at = at.setdefault(name, {})
        at[last] = value
    return minimal


def faults_of(config: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        config_from(config)
    return dict(caught.value.faults)
