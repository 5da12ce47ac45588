"""``flow-outcomes config``: validates, shows or describes the configuration, without a database."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import yaml

from service.cli import ExitCode, configuration
from service.config.effective import effective
from service.config.schema import json_schema
from service.errors import ConfigError
from service.telemetry import counted, printable, redacted


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    return {"validate": _validate, "show": _show, "schema": _schema}[arguments.action](arguments)


def _validate(arguments: argparse.Namespace) -> int:
    try:
        config = configuration.read(arguments)
    except ConfigError as error:
        if not arguments.json:
            raise
        faults = [{"key": fault.key, "message": fault.message} for fault in error.faults]
        print(redacted(json.dumps({"valid": False, "faults": faults, "warnings": []}, indent=2)))
        return ExitCode.USAGE
    warnings = [
        {"key": f"orgs.{org.name}.region", "message": f"is no region of Genesys Cloud; {org.region_fix}"}
        for org in config.orgs.values()
        if org.unknown_region is not None
    ]
    if arguments.json:
        print(json.dumps({"valid": True, "faults": [], "warnings": warnings}, indent=2))
    else:
        counts = f"{counted(len(config.orgs), 'org')}, {counted(len(config.jobs), 'job')}"
        for warning in warnings:
            sys.stderr.write(f"warning: {warning['key']}: {warning['message']}\n")
        print(f"{printable(str(arguments.config))} is valid: {counts}")
    return ExitCode.DONE


def _show(arguments: argparse.Namespace) -> int:
    tree = _redacted(effective(configuration.read(arguments)))
    if arguments.json:
        print(json.dumps(tree, indent=2, ensure_ascii=False))
    else:
        yaml.safe_dump(tree, sys.stdout, sort_keys=False, allow_unicode=True, width=sys.maxsize)
    return ExitCode.DONE


def _schema(_: argparse.Namespace) -> int:
    print(json.dumps(json_schema(), indent=2))
    return ExitCode.DONE


def _redacted(value: Any) -> Any:  # noqa: ANN401 - a value of JSON
    """The value without the passwords in its texts."""
    match value:
        case str():
            return redacted(value)
        case dict():
            return {key: _redacted(each) for key, each in value.items()}
        case list():
            return [_redacted(each) for each in value]
        case _:
            return value
