"""Runs a benchmark by name, or all of them in their short form: ``python -m benchmarks [NAME [ARGUMENT …]]``."""

from __future__ import annotations

import subprocess
import sys

SHORT: dict[str, list[str]] = {
    "end_to_end": ["--rounds", "3"],
    "limit": ["--pages", "200"],
    "requests_needed": [],
    "growth": ["--stored", "0", "2000000"],
    "memory": ["--rows", "10000", "500000"],
    "orgs": ["--orgs", "1", "10"],
    "processes": ["--days", "20", "--processes", "1", "2"],
    "storage": [],
    "alias_hold": [],
    "page": [],
    "readers": ["--seconds", "20"],
    "idle": ["100", "30"],
    "startup": [],
    "suggestions": ["--seeds", "20"],
    "export": ["--figures", "1000000"],
}


def main() -> int:
    """Run one benchmark with its arguments, or all of them."""
    name, *arguments = sys.argv[1:] or [""]
    if name and name not in SHORT:
        sys.exit(f"unknown benchmark {name!r}; use one of {', '.join(SHORT)}")
    codes = []
    for each in [name] if name else SHORT:
        sys.stdout.write(f"\n== {each}\n")
        sys.stdout.flush()
        command = [sys.executable, "-m", f"benchmarks.{each}", *(arguments if name else SHORT[each])]
        codes.append(subprocess.run(command, check=False).returncode)  # noqa: S603 - our own modules
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
