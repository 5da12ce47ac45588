"""The types of the configuration's keys: how each kind of value is parsed, and its bounds."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    SecretStr,
    StringConstraints,
)

from service.config import values
from service.config.proxies import parse_proxy

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*\z", max_length=63)]
AdHocName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]*\z", max_length=63)]
NonEmpty = Annotated[str, BeforeValidator(values.as_text), AfterValidator(values.non_empty)]
Secret = Annotated[SecretStr, BeforeValidator(values.as_text)]
WholeNumber = Annotated[int, BeforeValidator(values.from_text)]
FilePath = Annotated[Path, BeforeValidator(values.path)]
Url = Annotated[str, BeforeValidator(values.url)]


def _check_proxy(value: SecretStr) -> SecretStr:
    parse_proxy(value.get_secret_value(), "proxy")
    return value


ProxyUrl = Annotated[Secret, AfterValidator(_check_proxy)]
TextList = Annotated[
    tuple[NonEmpty, ...],
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
    BeforeValidator(values.from_text),
    AfterValidator(values.distinct),
]
HostNames = Annotated[
    tuple[Annotated[str, BeforeValidator(values.host_name)], ...],
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
    BeforeValidator(values.from_text),
]
Dimensions = Annotated[TextList, AfterValidator(values.dimensions)]
MeasureName = Literal["outcomes", "executions", "milestones"]
GranularityOrAuto = Literal["hourly", "daily", "monthly", "auto"]
Positive = Annotated[timedelta, BeforeValidator(values.duration(above=True, most=DAY))]
Delay = Annotated[timedelta, BeforeValidator(values.duration(HOUR, 366 * DAY))]
Duration = Annotated[timedelta, BeforeValidator(values.duration())]
Retention = Annotated[timedelta | None, BeforeValidator(values.optional(values.duration(DAY)))]
