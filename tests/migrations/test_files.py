"""Migration files: numbered, each with a rollback, and never edited after a release."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from service.postgres.migrate import known_migrations, migrations_dir

CHECKSUMS = Path(__file__).with_name("checksums.txt")
REFRESH = "(cd migrations && sha256sum *.sql) > tests/migrations/checksums.txt"


def test_names() -> None:
    """Each file is NNNN_verb_object.sql."""
    assert known_migrations()
    assert [name for name in known_migrations() if not re.fullmatch(r"\d{4}_[a-z]+(_[a-z0-9]+)+", name)] == []


def test_numbers_have_no_gap() -> None:
    """The numbers run from 1 without a gap or a second use."""
    assert [int(name[:4]) for name in known_migrations()] == list(range(1, len(known_migrations()) + 1))


def test_each_file_has_a_rollback() -> None:
    """Each file has a rollback, and each rollback a file."""
    back = {file.name.removesuffix(".rollback.sql") for file in migrations_dir().glob("*.rollback.sql")}
    assert back == set(known_migrations())


def test_files_are_unedited() -> None:
    """A file that a database may have applied is not edited; a change is a new file.

    yoyo identifies a file by its name and would not notice. For a file that no release has, update the checksums.
    """
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in migrations_dir().glob("*.sql")}
    written = {name: digest for digest, name in map(str.split, CHECKSUMS.read_text().splitlines())}
    assert found == written, f"if no release has these files: {REFRESH}"
