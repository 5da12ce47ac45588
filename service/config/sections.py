"""The sections of the configuration: each key with its bounds and its default.

Validation here covers single values; ``rules`` covers conditions that involve several keys.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
)

from service.config import regions, values
from service.config.certificates import read_certificates
from service.config.dsn import secrets_in
from service.config.fields import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    AdHocName,
    Delay,
    Dimensions,
    Duration,
    FilePath,
    GranularityOrAuto,
    HostNames,
    MeasureName,
    Name,
    NonEmpty,
    Positive,
    ProxyUrl,
    Retention,
    Secret,
    TextList,
    Url,
    WholeNumber,
)
from service.config.proxies import Proxy, Route, parse_proxy, route_to, variable_for
from service.config.secret_file import read_secret
from service.config.warehouse import catalog_properties, is_secret, namespace_name, warehouse_location
from service.errors import ConfigError, Fault
from service.model import Granularity, Measure


class Section(BaseModel):
    """An immutable mapping of known keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, validate_default=False
    )


class Named(Section):
    """A section under a name that the user chooses."""

    _name: str = PrivateAttr("")

    @property
    def name(self) -> str:
        """The section's name."""
        return self._name


class Database(Section):
    """Where figures are stored: a server's ``dsn``, or the folder of an ``embedded`` server."""

    dsn: Secret | None = None
    embedded: FilePath | None = None
    pool_size: Annotated[WholeNumber, Field(ge=2, le=200)] = 8

    @property
    def secrets(self) -> frozenset[str]:
        """The secrets of the DSN."""
        return frozenset() if self.dsn is None else secrets_in(self.dsn.get_secret_value())


class Http(Section):
    """Where health, metrics and the page are served; port 0 is any free port."""

    host: NonEmpty = "127.0.0.1"
    port: Annotated[WholeNumber, Field(ge=0, le=65535)] = 8080
    allowed_hosts: HostNames = ()


class Log(Section):
    """The level and the format of the log; ``auto`` is console on a terminal and json elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console", "auto"] = "json"


class Breaker(Section):
    """The org's circuit breaker: consecutive failures that open it, and how long it stays open the first time."""

    failures: Annotated[WholeNumber, Field(ge=1, le=1000)] = 5
    open_for: Annotated[timedelta, BeforeValidator(values.duration(above=True, most=10 * MINUTE))] = 30 * SECOND


@dataclass(frozen=True, slots=True)
class Credentials:
    """An OAuth client; its ``repr`` does not have the secret."""

    client_id: str
    client_secret: str = field(repr=False)


def _default_rate(given: dict[str, Any]) -> float:
    return 5.0 if given.get("api") == "flow-aggregates" else 10.0


class Org(Named):
    """One Genesys Cloud organisation."""

    api: Literal["query-builder", "flow-aggregates"] = "query-builder"
    region: Annotated[str, BeforeValidator(values.region)] | None = None
    base_url: Url | None = None
    login_url: Url | None = None
    client_id: NonEmpty
    client_secret: Secret | None = None
    client_secret_file: FilePath | None = None
    proxy: Annotated[ProxyUrl | None, BeforeValidator(values.null_if_empty)] = None
    ca_file: Annotated[FilePath | None, BeforeValidator(values.null_if_empty)] = None
    requests_per_second: Annotated[
        float, BeforeValidator(values.from_text), Field(gt=0, le=100_000, allow_inf_nan=False)
    ] = Field(default_factory=_default_rate)
    concurrency: Annotated[WholeNumber, Field(ge=1, le=64)] = 4
    page_size: Annotated[WholeNumber, Field(ge=1, le=1000)] = 100
    query_timeout: Annotated[timedelta, BeforeValidator(values.duration(above=True, most=HOUR))] = 120 * SECOND
    job_timeout: Positive = 10 * MINUTE
    breaker: Breaker = Breaker()
    timezone: Annotated[str, BeforeValidator(values.timezone)] = "UTC"
    flows: TextList = ()
    aggregates: Literal["query", "jobs"] = "query"
    retention: Retention = None

    _certificates: str = PrivateAttr("")

    def model_post_init(self, context: object, /) -> None:
        """Read the certificates of ``ca_file``, so that a reload finds that they changed."""
        super().model_post_init(context)
        if self.ca_file is not None:
            self._certificates, _ = read_certificates(self.ca_file)

    _groupings: Mapping[tuple[Granularity, Measure], tuple[str, ...]] = PrivateAttr(default_factory=dict)

    @property
    def certificates(self) -> str:
        """The certificates of ``ca_file`` as PEM, or empty."""
        return self._certificates

    def route_to(self, url: str) -> Route:
        """How a URL is reached: through the org's proxy, the environment's, or directly.

        Raises:
            ConfigError: the environment's proxy is invalid.
        """
        key = f"orgs.{self.name}.proxy"
        own = None if self.proxy is None else parse_proxy(self.proxy.get_secret_value(), key)
        try:
            return route_to(url, own, key)
        except ValueError as error:
            variable = variable_for(urlsplit(url).scheme)
            raise ConfigError([Fault(variable, f"{error}; {key} takes precedence over it")]) from None

    @property
    def proxies(self) -> list[Proxy]:
        """The proxies through which the org's servers are reached.

        Raises:
            ConfigError: the environment's proxy is invalid.
        """
        routes = map(self.route_to, (self.token_url, self.api_url))
        return [route.proxy for route in routes if route.proxy is not None]

    @property
    def api_url(self) -> str:
        """The API's root, without a trailing slash."""
        return self.base_url or f"https://api.{self.region}"

    @property
    def token_url(self) -> str:
        """The root of the login server, without a trailing slash."""
        return self.login_url or f"https://login.{self.region}"

    @property
    def unknown_region(self) -> str | None:
        """The region, where its domain is used and is none of Genesys Cloud's; None otherwise."""
        used = self.base_url is None or self.login_url is None
        return self.region if used and self.region and not regions.is_known(self.region) else None

    @property
    def region_fix(self) -> str:
        """What to write instead of an unknown region."""
        return "for a gateway set base_url and login_url; " + regions.suggestion(self.unknown_region or "")

    @property
    def response_entries_max(self) -> int | None:
        """The most entries of a response: an operator saw a limit of 30,000; None where it has pages."""
        return 30_000 if self.api == "flow-aggregates" and self.aggregates == "query" else None

    @property
    def rate_ceiling(self) -> float | None:
        """The given ``requests_per_second``, above which no rate of the API applies; None where none is given."""
        return self.requests_per_second if "requests_per_second" in self.model_fields_set else None

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What the org's jobs measure; outcomes where it has none."""
        return tuple(each for each in Measure if each in {measure for _, measure in self._groupings}) or (
            Measure.OUTCOMES,
        )

    def group_by(self, granularity: Granularity, measure: Measure) -> tuple[str, ...]:
        """The dimensions by which the org's figures are split, sorted: those of its jobs.

        At a granularity that no job has, those of the next finer one apply, since windows become coarser.
        """
        finer = list(Granularity)[: list(Granularity).index(granularity) + 1]
        return next(
            (found for each in reversed(finer) if (found := self._groupings.get((each, measure))) is not None), ()
        )

    @property
    def tz(self) -> ZoneInfo:
        """The zone in which this org's days and months begin."""
        return ZoneInfo(self.timezone)

    def credentials(self) -> Credentials:
        """The client's id and secret; a secret's file is read again each time, since the secret may be rotated.

        Raises:
            ConfigError: the file cannot be read, or has no valid secret.
        """
        if self.client_secret is not None:
            return Credentials(self.client_id, self.client_secret.get_secret_value())
        secret, fault = read_secret(self.client_secret_file)
        if fault:
            raise ConfigError([Fault(f"orgs.{self.name}.client_secret_file", fault)])
        return Credentials(self.client_id, secret)


class DeepLookback(Section):
    """Windows up to ``span`` before the newest due one are extracted again, ``every`` so often."""

    span: Annotated[timedelta, BeforeValidator(values.duration(above=True))]
    every: Annotated[timedelta, BeforeValidator(values.duration(above=True))]


class Job(Named):
    """A rule that divides time into windows and says when each is due."""

    orgs: TextList = ()
    measure: MeasureName = "outcomes"
    group_by: Dimensions = ()
    window: Literal["hour", "day", "week", "month"] = "day"
    granularity: GranularityOrAuto = "daily"
    since: Annotated[values.Since, BeforeValidator(values.since)]
    delay: Delay = HOUR
    lookback: Duration = 3 * DAY
    deep_lookback: Annotated[DeepLookback | None, BeforeValidator(values.optional_section)] = None
    off_peak: Annotated[values.OffPeak | None, BeforeValidator(values.off_peak)] = values.off_peak("02:00-05:00")
    retry_every: Positive = 15 * MINUTE
    metrics_delay: Literal["auto", "always", "never"] = "auto"
    expect_for: Duration = 31 * DAY

    def of(self, org: Org) -> Job:
        """The job as it applies to an org: the defaults that depend on the org's API, where no value is given."""
        if org.api != "flow-aggregates":
            return self
        defaults = {key: value for key, value in _AGGREGATES.items() if key not in self.model_fields_set}
        return self.model_copy(update=defaults) if defaults else self


_AGGREGATES = {"lookback": 7 * DAY, "off_peak": None}
"""Defaults of a job's keys on flow-aggregates: corrections come for days after a nightly pipeline has run, and a
handful of requests needs no off-peak hours."""


class AdHoc(Named):
    """A span that is extracted once for each name and content; ``end`` is exclusive."""

    org: NonEmpty
    start: Annotated[date, BeforeValidator(values.day), Field(alias="from")]
    end: Annotated[date, BeforeValidator(values.day), Field(alias="to")]
    granularity: GranularityOrAuto = "auto"
    measure: MeasureName | None = None

    @cached_property
    def content_hash(self) -> str:
        """A digest of the content; an entry with another content is extracted again."""
        content = [self.org, self.start.isoformat(), self.end.isoformat(), self.granularity]
        content += [] if self.measure is None else [self.measure]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


class Export(Section):
    """The warehouse: Apache Iceberg tables in object storage or in a folder."""

    catalog: Annotated[
        Mapping[str, str | SecretStr], BeforeValidator(catalog_properties), BeforeValidator(values.from_text)
    ] = Field(default_factory=lambda: {"type": "sql"})
    warehouse: Annotated[str, BeforeValidator(warehouse_location)]
    namespace: Annotated[str, BeforeValidator(namespace_name)] = "flow_outcomes"
    every: Annotated[timedelta, BeforeValidator(values.duration(above=True))] | None = HOUR
    keep_snapshots: Annotated[timedelta, BeforeValidator(values.duration(above=True))] = 7 * DAY

    def properties(self) -> dict[str, str]:
        """The catalog's properties, as pyiceberg takes them; they may hold secrets."""
        given = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in self.catalog.items()
        }
        return {"type": "sql"} | given

    @property
    def is_catalog_in_database(self) -> bool:
        """Whether the catalog is kept in the configured database."""
        properties = self.properties()
        return properties["type"] == "sql" and not properties.get("uri")

    @property
    def target(self) -> str:
        """Where the tables are."""
        return f"{self.warehouse} {self.namespace}"

    @property
    def secrets(self) -> frozenset[str]:
        """The values of the catalog's properties that grant access."""
        given = self.properties()
        found = {value for name, value in given.items() if is_secret(name)}
        return frozenset(found | secrets_in(given["uri"]) if "uri" in given else found)


class Config(Section):
    """The complete configuration."""

    database: Database
    http: Http = Http()
    log: Log = Log()
    orgs: Mapping[Name, Org]
    jobs: Mapping[Name, Job] = Field(default_factory=dict)
    ad_hoc: Mapping[AdHocName, AdHoc] = Field(default_factory=dict)
    export: Export | None = None

    def model_post_init(self, context: object, /) -> None:
        """Set the name of each named section."""
        super().model_post_init(context)
        groups: list[Mapping[str, Named]] = [self.orgs, self.jobs, self.ad_hoc]
        for sections in groups:
            for name, section in sections.items():
                section._name = name  # noqa: SLF001 - set once, here
        for org in self.orgs.values():
            org._groupings = {  # noqa: SLF001 - set once, here
                (Granularity(values.step(job.window, job.granularity)), Measure(job.measure)): job.group_by
                for job in self.jobs_of(org).values()
            }

    def orgs_of(self, job: str) -> tuple[Org, ...]:
        """The orgs of a job; all orgs where it names none."""
        return tuple(self.orgs[name] for name in self.jobs[job].orgs or self.orgs)

    def jobs_of(self, org: Org) -> dict[str, Job]:
        """An org's jobs by name, as they apply to it."""
        return {name: job.of(org) for name, job in self.jobs.items() if not job.orgs or org.name in job.orgs}

    def restart_needed(self, other: Config) -> list[str]:
        """The keys that differ in ``other`` and need a restart to change."""
        return [
            f"{section}.{key}"
            for section, mine, theirs in (
                ("database", self.database, other.database),
                ("http", self.http, other.http),
            )
            for key in type(mine).model_fields
            if getattr(mine, key) != getattr(theirs, key)
        ]
