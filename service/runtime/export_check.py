"""Whether the export's catalog can be reached and its warehouse written, for ``check``."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from service.config import Config, Export
from service.errors import ConfigError, ExportError
from service.export import extra, run_probe
from service.model import Finding, State

TIMEOUT = 60.0
"""Seconds for both; clients of object storage retry an unreachable one for long."""
_SUBJECTS = ("export catalog", "export warehouse")
_NO_DATABASE = Finding(
    "export catalog", State.SKIPPED, "not checked: it is in the database", "fix the database first"
)


async def export_findings(config: Config, dsn: str | None) -> list[Finding]:
    """The findings about the export; none where no warehouse is configured.

    Args:
        config: the configuration.
        dsn: the database; None where it cannot be used, or does not have the current schema.
    """
    if config.export is None:
        return []
    try:
        extra.require(extra.ICEBERG)
    except ConfigError as error:
        missing, _, fix = error.faults[0].message.partition(". ")
        return [Finding("export", State.SKIPPED, f"not checked: it {missing}", fix)]
    findings = [_NO_DATABASE] if dsn is None and config.export.is_catalog_in_database else []
    return findings + await _probed(config.export, dsn, {each.subject for each in findings})


async def _probed(export: Export, dsn: str | None, known: set[str]) -> list[Finding]:
    findings: list[Finding] = []
    try:
        async with asyncio.timeout(TIMEOUT), aclosing(run_probe(export, dsn)) as probes:
            async for each in probes:
                findings.append(each)  # noqa: PERF401 - what was found before an error is kept
    except TimeoutError:
        detail, fix = (
            f"no response within {TIMEOUT:.0f} s",
            "check the network, and export.catalog and export.warehouse",
        )
    except ExportError as error:
        detail, fix = str(error), "run the check again"
    else:
        return findings
    missing = [each for each in _SUBJECTS if each not in known | {each.subject for each in findings}]
    return [*findings, Finding(missing[0], State.FAILED, detail, fix)]
