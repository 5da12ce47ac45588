"""The installed program as a process, on a real PostgreSQL, against a simulator in the test's own process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.program import Program


@pytest.fixture
async def program(tmp_path: Path, database: str) -> AsyncIterator[Program]:
    """The program on a new database with the current schema; its processes end with the test."""
    async with Program(tmp_path, database) as program:
        yield program


@pytest.fixture
async def new_program(tmp_path: Path, empty_database: str) -> AsyncIterator[Program]:
    """The program on a new, empty database."""
    async with Program(tmp_path, empty_database) as program:
        yield program
