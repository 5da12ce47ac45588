"""A DSN's faults and secrets."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from service.config.dsn import fault_in, secrets_in

ESCAPES = "@ as %40, % as %25"
PORT = "a port that is not a whole number"
PAIRS = "single quotes"

INVALID = {
    "postgresql://u:p@canary-one@host/db": ESCAPES,
    "postgresql://u:canary-one@canary-two@host/db": ESCAPES,
    "postgresql://u:canary%one@host/db": ESCAPES,
    "postgresql://u:canary%zzone@host/db": ESCAPES,
    "postgresql://u:canary%00one@host/db": ESCAPES,
    "postgresql://u:canary-one%@host/db": ESCAPES,
    "postgresql://u:canary one@host/db": ESCAPES,
    "postgresql://u:canary/one-two@host/db": ESCAPES,
    "postgresql://u:5432/canary-one@host/db": ESCAPES,
    "postgresql://u:p@canary/one-two@host/db": ESCAPES,
    "postgresql://u:p@1,canary:5432@host/db": ESCAPES,
    "postgresql://u:p@canary?one-two@host/db": ESCAPES,
    "postgresql://u/x:canary-one@host/db": ESCAPES,
    "postgresql://me@canary-one:p@host/db": ESCAPES,
    "postgresql://u:p@[canary-one/db": ESCAPES,
    "postgresql://u:canary-one": PORT,
    "postgresql://u:canary-one/db": PORT,
    "postgresql://u:99999/db": PORT,
    "postgresql://one:5432,two:canary-one/db": PORT,
    "postgresql:///db?port=canary-one": PORT,
    "host=one port=canary-one": PORT,
    "postgresql://host/db?password=canary&one-two": ESCAPES,
    "postgresql://host/db?password=canary%one": ESCAPES,
    "postgresql://host/db?canary-one=x": ESCAPES,
    "postgresql://host/db?x=canary-one": ESCAPES,
    "postgresql://host/db?canary-one": ESCAPES,
    "postgresql://host/db?connect_timeout=canary-one": "connect_timeout",
    "host=one keepalives_idle=canary-one": "keepalives_idle",
    "host=one password='canary one": PAIRS,
    "host=one password=canary one": PAIRS,
    "host=one password='canary'one": PAIRS,
    "host=one Password=canary-one": PAIRS,
    "host=one canary-one": PAIRS,
    "host=one password=canary-\0one": "control characters",
    "postgresql://u:canary-one@host/db\n": "control characters",
    "postgresql://u:canary\udcffone@host/db": ESCAPES,
    "POSTGRESQL://u:canary-one@host/db": "postgresql://USER@HOST/NAME",
    "postgresql+psycopg://u:canary=one@host/db": "postgresql://USER@HOST/NAME",
    " postgresql://u:canary=one@host/db": "postgresql://USER@HOST/NAME",
    "u:canary-one@host/db": "postgresql://USER@HOST/NAME",
}

VALID = {
    "postgresql://": set(),
    "postgresql://outcomes@db/outcomes": set(),
    "postgresql://u:@host/db": set(),
    "postgresql://u:p@host/db": {"p"},
    "postgresql://u:canary%40one%2Dtwo@host/db": {"canary%40one%2Dtwo", "canary@one-two", "one-two"},
    "postgresql://u:canary:one?#[]&=,ü@host/db": {"canary:one?#[]&=,ü", "canary"},
    "postgresql://u:p@one:5432,two/db?target_session_attrs=read-write": {"p"},
    "postgresql://u@[::1]:5432/db": set(),
    "postgresql://host/my@db": set(),
    "postgresql://%2Frun%2Fpostgresql/db": set(),
    "postgresql:///db?host=/run/postgresql&user=me@tenant": set(),
    "postgresql://host/db?password=canary%40one": {"canary%40one", "canary@one", "canary"},
    "postgresql://u@host/db?sslpassword=canary-one&connect_timeout=-1": {"canary-one"},
    "host=one password=p@%/:#": {"p@%/:#"},
    "host=one,two port=5432, password='canary \\'one\\\\'": {"canary 'one\\"},
    "host=one\nport=5432\npassword=canary-one\n": {"canary-one"},
    "host=@abstract passfile=/run/secrets/pgpass": set(),
    "service=outcomes": set(),
}


@pytest.mark.parametrize("dsn", INVALID)
def test_the_fault_of_an_invalid_dsn_repeats_no_part_of_it(dsn: str) -> None:
    """What libpq rejects, or splits in an unintended way; the fault says what to escape."""
    fault = fault_in(dsn)
    assert INVALID[dsn] in fault
    assert fault.isprintable()
    assert not re.search("canary|one|two", fault)


@pytest.mark.parametrize("dsn", VALID)
def test_a_valid_dsn_is_accepted(dsn: str) -> None:
    """In any form, and with a password of any length; its secrets are found as written and as decoded."""
    assert fault_in(dsn) == ""
    assert secrets_in(dsn) >= VALID[dsn]
    assert bool(secrets_in(dsn) - {""}) == bool(VALID[dsn])


@given(
    password=st.text(
        st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("@%:/?#[]&=, 1a"), max_size=24
    )
)
@example("p@ssword1")
@example("pa/ssword")
@example("5432/canary?password=x")
@example("1,canary:2@3/4@five-six")
def test_no_part_of_a_password_is_read_as_another_option(password: str) -> None:
    """An unescaped password is a fault, is read as the password, or its pieces are secrets."""
    dsn = f"postgresql://outcomes:{password}@db.example:5432/outcomes"
    fault = fault_in(dsn)
    pieces = [piece for piece in re.split(r"[@%:/?&=,]", password) if len(piece) >= 6]
    if fault:
        assert fault in {fault_in(invalid) for invalid in INVALID}
        return
    read = conninfo_to_dict(dsn)
    shown = " ".join(str(value) for key, value in read.items() if key not in {"user", "password"})
    for secret in sorted(secrets_in(dsn), key=len, reverse=True):
        if len(secret) >= 6:
            shown = shown.replace(secret, "***")
    assert not any(piece in shown for piece in pieces)
