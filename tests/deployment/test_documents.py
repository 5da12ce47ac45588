"""Every code block of every document has a test that runs it, or a reason why none can."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict

from service.config import config_from
from service.config.dsn import fault_in
from tests.support.documents import PAGES, ROOT, Block, blocks

README_WALK = "tests/deployment/test_readme.py::test_the_walkthrough"
EMPTY_FOLDER = "tests/deployment/test_readme.py::test_in_an_empty_folder"
QUERIES = "tests/integration/test_querying_doc.py::test_each_query_answers"
OPERATING = "tests/integration/test_operating_doc.py"
WAREHOUSES = "tests/integration/test_warehouses_doc.py"
PICTURE = "not run: a diagram"

# The test of each block, or why it has none, in order, by page, heading and language.
TESTS: dict[tuple[str, str, str], list[str]] = {
    ("README.md", "Try it", "sh"): [EMPTY_FOLDER, "not run: it runs this test"],
    ("README.md", "Run it", "sh"): [EMPTY_FOLDER, README_WALK, README_WALK, README_WALK],
    ("README.md", "Run it", "yaml"): [README_WALK],
    ("README.md", "With your own PostgreSQL", "sql"): [README_WALK],
    ("README.md", "With your own PostgreSQL", "yaml"): [README_WALK],
    ("README.md", "With your own PostgreSQL", "sh"): [README_WALK],
    ("README.md", "In production", "sh"): ["not run: nothing is published yet"],
    ("README.md", "Query it", "sql"): [README_WALK],
    ("CONTRIBUTING.md", "Set up", "sh"): ["not run: it runs this test"],
    ("CONTRIBUTING.md", "Release", "sh"): [
        "not run: it tags and pushes",
        "tests/deployment/test_release.py::test_release_artifacts",
    ],
    ("ARCHITECTURE.md", "Data flow", ""): [PICTURE],
    ("docs/flow-aggregates.md", "Dimensions, executions, milestones", "yaml"): [
        "tests/deployment/test_documents.py::test_the_other_api"
    ],
    ("docs/flow-aggregates.md", "The flow-aggregates API", "yaml"): [
        "tests/deployment/test_documents.py::test_the_other_api"
    ],
    ("docs/operating.md", "Traces", "sh"): ["tests/acceptance/test_traces.py::test_the_console"],
    ("docs/operating.md", "Rotating a secret", "yaml"): [
        "tests/deployment/test_documents.py::test_a_password_in_both_forms"
    ],
    ("docs/operating.md", "Moving the time zone", "sql"): [f"{OPERATING}::test_the_time_zone_moves"],
    ("docs/operating.md", "The schema", "sql"): [f"{OPERATING}::test_a_role_of_its_own"],
    ("docs/operating.md", "The schema", "sh"): [f"{OPERATING}::test_the_way_back"],
    ("docs/operating.md", "Backup", "sh"): [f"{OPERATING}::test_backup_and_restore"],
    ("docs/operating.md", "Removing old months", "sh"): [f"{OPERATING}::test_old_months_go"] * 2,
    ("docs/scaling.md", "More databases: several installations", "sh"): [
        "tests/integration/test_fdw.py::test_passwords_are_placeholders"
    ],
    ("docs/security.md", "Dependencies", "sh"): ["not run: it needs a server on the network"],
    ("docs/warehouses.md", "Warehouse export", "yaml"): [f"{WAREHOUSES}::test_what_python_and_duckdb_read"],
    ("docs/warehouses.md", "Warehouse export", "sh"): [f"{WAREHOUSES}::test_what_python_and_duckdb_read"],
    ("docs/scaling.md", "Several machines that read", "python"): ["tests/engines/test_daft.py::test_the_page"],
    ("docs/warehouses.md", "polars and pyiceberg", "python"): [f"{WAREHOUSES}::test_what_python_and_duckdb_read"],
    ("docs/warehouses.md", "DuckDB", "sql"): [f"{WAREHOUSES}::test_what_python_and_duckdb_read"],
    ("docs/warehouses.md", "Spark", "sh"): ["tests/engines/test_spark.py::test_every_table"],
    ("docs/warehouses.md", "Warehouses", "sql"): ["not run: it needs the warehouse"],
    **{
        ("docs/querying.md", heading, "sql"): [QUERIES] * times
        for heading, times in Counter(block.heading for block in blocks("docs/querying.md")).items()
    },
}
SHELL = [block for page in PAGES for block in blocks(page, language="sh")]
TARGETS = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_every_block_is_listed() -> None:
    """The list has exactly the existing blocks."""
    existing = Counter((block.page, block.heading, block.language) for page in PAGES for block in blocks(page))
    assert {block: len(tests) for block, tests in TESTS.items()} == existing


@pytest.mark.parametrize("test", sorted({test for each in TESTS.values() for test in each if "::" in test}))
def test_listed_tests_exist(test: str) -> None:
    """A listed test exists and reads the page of its block."""
    file, _, name = test.partition("::")
    text = (ROOT / file).read_text()
    assert re.search(rf"^(?:async )?def {name}\(", text, re.MULTILINE)
    for page in {block[0] for block, each in TESTS.items() if test in each}:
        assert Path(page).name in text


@pytest.mark.parametrize("block", SHELL, ids=lambda block: f"{block.page} {block.heading}")
def test_shell_blocks_are_valid(block: Block) -> None:
    """Bash accepts each shell block, and its make targets exist."""
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run([bash, "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [each for each in re.findall(r"\bmake ([a-z]+)", block.text) if each not in TARGETS] == []


def test_the_other_api() -> None:
    """The configuration in docs/flow-aggregates.md is valid."""
    texts = [
        block.text.replace("…", "given-value") for block in blocks("docs/flow-aggregates.md", language="yaml")
    ]
    tree = {"database": {"dsn": "postgresql://db/outcomes"}}
    for text in texts:
        tree |= yaml.safe_load(text)
    config = config_from(tree)
    [org] = config.orgs.values()
    assert (org.api, org.aggregates, len(org.measures)) == ("flow-aggregates", "query", 3)


def test_a_password_in_both_forms() -> None:
    """The two DSNs in docs/operating.md are valid and equivalent."""
    [block] = blocks("docs/operating.md", "Rotating a secret", "yaml")
    dsns = [str(yaml.safe_load(line)["dsn"]) for line in block.text.splitlines()]
    assert [fault_in(dsn) for dsn in dsns] == ["", ""]
    url, pairs = map(conninfo_to_dict, dsns)
    assert url == pairs
    assert url["password"] == "p@ss 5%"


def test_named_benchmarks_exist() -> None:
    """Every benchmark that a document names can be run."""
    named = {
        name for page in PAGES for name in re.findall(r"python -m benchmarks\.(\w+)", (ROOT / page).read_text())
    }
    assert {"processes", "storage", "idle", "memory", "limit"} <= named
    for name in named:
        assert '__name__ == "__main__"' in (ROOT / "benchmarks" / f"{name}.py").read_text()
