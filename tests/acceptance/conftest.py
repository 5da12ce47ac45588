"""The installed program as a process, on a real PostgreSQL, against a simulator in the test's own process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.program import Program


@pytest.fixture
def program(tmp_path: Path, database: str) -> Iterator[Program]:
    """The program on a database of this test's own, the schema current; nothing of it outlives the test."""
    program = Program(tmp_path, database)
    yield program
    for running in program.running:
        running.kill()


@pytest.fixture
def newcomer(tmp_path: Path, empty_database: str) -> Iterator[Program]:
    """The program on a database with nothing in it."""
    program = Program(tmp_path, empty_database)
    yield program
    for running in program.running:
        running.kill()
