"""The sections of the configuration, each key with its bounds and its default; all frozen.

What one value can be judged by alone is judged here. What needs two keys side by side stands in ``rules``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    StringConstraints,
)

from service.config import values
from service.config.dsn import secrets_in
from service.errors import ConfigError, Fault

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*\z", max_length=63)]
AdHocName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]*\z", max_length=63)]
Filled = Annotated[str, BeforeValidator(values.plain), AfterValidator(values.filled)]
Secret = Annotated[SecretStr, BeforeValidator(values.plain)]
Whole = Annotated[int, BeforeValidator(values.from_text)]
FilePath = Annotated[Path, BeforeValidator(values.path)]
Url = Annotated[str, BeforeValidator(values.url)]
TextList = Annotated[
    tuple[Filled, ...],
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
    BeforeValidator(values.from_text),
    AfterValidator(values.distinct),
]
GranularityOrAuto = Literal["hourly", "daily", "monthly", "auto"]
Positive = Annotated[timedelta, BeforeValidator(values.duration(above=True, most=DAY))]
Delay = Annotated[timedelta, BeforeValidator(values.duration(HOUR, 366 * DAY))]
Longish = Annotated[timedelta, BeforeValidator(values.duration())]


class Section(BaseModel):
    """A mapping of known keys that cannot be changed once it was read."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, validate_default=False
    )


class Named(Section):
    """A section that stands under a name of the user's choice."""

    _name: str = PrivateAttr("")

    @property
    def name(self) -> str:
        """The name it stands under."""
        return self._name


class Database(Section):
    """Where the figures are kept: a server's ``dsn``, or the folder of an ``embedded`` one."""

    dsn: Secret | None = None
    embedded: FilePath | None = None
    pool_size: Annotated[Whole, Field(ge=2, le=200)] = 8

    @property
    def secrets(self) -> frozenset[str]:
        """What of the DSN must not be shown."""
        return frozenset() if self.dsn is None else secrets_in(self.dsn.get_secret_value())


class Http(Section):
    """Where health, metrics and the page are served; port 0 is any free one."""

    host: Filled = "127.0.0.1"
    port: Annotated[Whole, Field(ge=0, le=65535)] = 8080


class Log(Section):
    """How much is logged, and in what form."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class Breaker(Section):
    """When an org is left alone: after so many failures in a row, for so long."""

    failures: Annotated[Whole, Field(ge=1, le=1000)] = 5
    open_for: Annotated[timedelta, BeforeValidator(values.duration(above=True, most=10 * MINUTE))] = 30 * SECOND


@dataclass(frozen=True, slots=True)
class Credentials:
    """An OAuth client; the secret stays out of every ``repr``."""

    client_id: str
    client_secret: str = field(repr=False)


def _usual_rate(given: dict[str, Any]) -> float:
    return 5.0 if given.get("api") == "flow-aggregates" else 10.0


class Org(Named):
    """One Genesys Cloud organisation."""

    api: Literal["query-builder", "flow-aggregates"] = "query-builder"
    region: Annotated[str, BeforeValidator(values.region)] | None = None
    base_url: Url | None = None
    login_url: Url | None = None
    client_id: Filled
    client_secret: Secret | None = None
    client_secret_file: FilePath | None = None
    requests_per_second: Annotated[
        float, BeforeValidator(values.from_text), Field(gt=0, le=100_000, allow_inf_nan=False)
    ] = Field(default_factory=_usual_rate)
    concurrency: Annotated[Whole, Field(ge=1, le=64)] = 4
    page_size: Annotated[Whole, Field(ge=1, le=1000)] = 100
    query_timeout: Annotated[timedelta, BeforeValidator(values.duration(above=True, most=HOUR))] = 120 * SECOND
    job_timeout: Positive = 10 * MINUTE
    breaker: Breaker = Breaker()
    timezone: Annotated[str, BeforeValidator(values.timezone)] = "UTC"
    flows: TextList = ()
    aggregates: Literal["query", "jobs"] = "query"

    @property
    def api_url(self) -> str:
        """The API's root, without a trailing slash."""
        return self.base_url or f"https://api.{self.region}"

    @property
    def token_url(self) -> str:
        """The root of the login server, without a trailing slash."""
        return self.login_url or f"https://login.{self.region}"

    @property
    def tz(self) -> ZoneInfo:
        """Where this org's days and months begin."""
        return ZoneInfo(self.timezone)

    def credentials(self) -> Credentials:
        """The client's id and secret; a secret's file is read anew, so that a rotated one is seen.

        Raises:
            ConfigError: the file cannot be read, or is empty.
        """
        if self.client_secret is not None:
            return Credentials(self.client_id, self.client_secret.get_secret_value())
        secret, trouble = read_secret(self.client_secret_file)
        if trouble:
            raise ConfigError([Fault(f"orgs.{self.name}.client_secret_file", trouble)])
        return Credentials(self.client_id, secret)


def read_secret(file: Path | None) -> tuple[str, str]:
    """The secret that a file holds, without its trailing line break, and what is wrong with it, or nothing."""
    if file is None:
        return "", "is required, or client_secret"
    try:
        secret = file.read_text(encoding="utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        return "", "the file must hold text in UTF-8"
    except OSError as error:
        return "", f"the file cannot be read: {error.strerror or type(error).__name__}"
    trouble = ""
    if not secret.strip():
        trouble = "the file is empty; it must hold the secret"
    elif not secret.isprintable():
        trouble = "the file must hold the secret alone, on one line"
    elif len(secret) < values.SECRET_MIN:
        trouble = f"the file must hold a secret of at least {values.SECRET_MIN} characters"
    return ("" if trouble else secret), trouble


class Job(Named):
    """A rule that cuts time into windows and says when each is due."""

    orgs: TextList = ()
    window: Literal["hour", "day", "week", "month"] = "day"
    granularity: GranularityOrAuto = "daily"
    since: Annotated[values.Since, BeforeValidator(values.since)]
    delay: Delay = HOUR
    lookback: Longish = 3 * DAY
    off_peak: Annotated[values.OffPeak | None, BeforeValidator(values.off_peak)] = values.off_peak("02:00-05:00")
    retry_every: Positive = 15 * MINUTE
    metrics_delay: Literal["auto", "always", "never"] = "auto"
    expect_for: Longish = 31 * DAY


class AdHoc(Named):
    """A span that is extracted once for its name and content; ``end`` is exclusive."""

    org: Filled
    start: Annotated[date, BeforeValidator(values.day), Field(alias="from")]
    end: Annotated[date, BeforeValidator(values.day), Field(alias="to")]
    granularity: GranularityOrAuto = "auto"

    @cached_property
    def content_hash(self) -> str:
        """A digest of what is asked for; another content is another piece of work."""
        content = [self.org, self.start.isoformat(), self.end.isoformat(), self.granularity]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


class Config(Section):
    """The whole configuration."""

    database: Database
    http: Http = Http()
    log: Log = Log()
    orgs: Mapping[Name, Org]
    jobs: Mapping[Name, Job] = Field(default_factory=dict)
    ad_hoc: Mapping[AdHocName, AdHoc] = Field(default_factory=dict)

    def model_post_init(self, context: object, /) -> None:
        """Tell each named section its name."""
        super().model_post_init(context)
        named: list[Mapping[str, Named]] = [self.orgs, self.jobs, self.ad_hoc]
        for sections in named:
            for name, section in sections.items():
                section._name = name  # noqa: SLF001 - a section is told its name once, here

    def orgs_of(self, job: str) -> tuple[Org, ...]:
        """The orgs that a job works for; all of them where it names none."""
        wanted = self.jobs[job].orgs or tuple(self.orgs)
        return tuple(self.orgs[name] for name in wanted)

    def restart_needed(self, other: Config) -> list[str]:
        """The keys that differ in ``other`` and cannot change while the program runs."""
        return [
            f"{section}.{key}"
            for section, mine, theirs in (
                ("database", self.database, other.database),
                ("http", self.http, other.http),
            )
            for key in type(mine).model_fields
            if getattr(mine, key) != getattr(theirs, key)
        ]
