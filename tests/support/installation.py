"""One configuration and database on the public API, run within the test's process."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import yaml
from psycopg.rows import dict_row

from service.config import Config, load_config
from service.runtime.once import run_once
from service.simulator import Simulator

FIRST = datetime(2024, 5, 6, tzinfo=UTC)
Row = dict[str, Any]
Sections = Mapping[str, Mapping[str, object]]
Key = tuple[str, str, datetime, str]


class Installation:
    """One configuration and database: runs what is due, and reads what is stored."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.file = folder / "flow-outcomes.yaml"
        self.dsn = dsn
        self.emitted: list[tuple[str, Row]] = []

    def configure(
        self, simulator: Simulator, orgs: Sections, *, jobs: Sections | None = None, ad_hoc: Sections | None = None
    ) -> Config:
        """Write the configuration, and load it."""
        tree = {
            "database": {"dsn": self.dsn},
            "orgs": {
                org: {
                    "api": "flow-aggregates",
                    "base_url": simulator.base_url,
                    "login_url": simulator.base_url,
                    "client_id": org,
                    "client_secret": simulator.orgs[org].settings.client_secret,
                    "requests_per_second": 500,
                    **settings,
                }
                for org, settings in orgs.items()
            },
            "jobs": jobs or {},
            "ad_hoc": ad_hoc or {},
        }
        self.file.write_text(yaml.safe_dump(tree))
        return load_config(self.file, {})

    async def run(
        self,
        simulator: Simulator,
        orgs: Sections,
        *,
        days: int = 10,
        granularity: str = "daily",
        name: str = "span",
        first: date = date(2024, 5, 6),
    ) -> int:
        """Run an ad hoc span for each org; the exit code."""
        span = {"from": first, "to": first + timedelta(days=days), "granularity": granularity}
        ad_hoc = {f"{name}_{org}": {"org": org, **span} for org in orgs}
        return await self.run_due(self.configure(simulator, orgs, ad_hoc=ad_hoc))

    async def run_due(self, config: Config) -> int:
        """Run what is due; the exit code."""
        self.emitted = []
        return await run_once(config, lambda event, **context: self.emitted.append((event, context)))

    def events(self, event: str) -> list[Row]:
        return [context for name, context in self.emitted if name == event]

    def rows(self, query: str, *parameters: object) -> list[Row]:
        with psycopg.connect(self.dsn, row_factory=dict_row, options="-c timezone=UTC") as connection:
            return connection.execute(query.encode(), parameters).fetchall()

    def view(self, relation: str) -> list[Row]:
        return self.rows(f"SELECT * FROM flow_outcomes.{relation}")

    def stored(self, org: str) -> dict[Key, Row]:
        return {
            (row["flow_id"], row["granularity"], row["bucket_start"], row["outcome_name"]): row
            for row in self.rows("SELECT * FROM flow_outcomes.flow_outcome WHERE org = %s", org)
        }

    def counts(self, org: str) -> dict[Key, int]:
        """The counts without zeros, which only one of the APIs reports."""
        return {key: row["outcome_count"] for key, row in self.stored(org).items() if row["outcome_count"]}

    def commit(self, statement: str) -> None:
        with psycopg.connect(self.dsn) as connection:
            connection.execute(statement.encode())
