"""The configuration's JSON Schema, for editors and other tools."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import PydanticOmit, core_schema

from service.config.sections import Config
from service.config.values import OffPeak, Since

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_DURATION = {
    "type": "string",
    "pattern": r"^P(?=.)([0-9.,]+[YMWD])*(T([0-9.,]+[HMS])+)?$",
    "description": "an ISO 8601 duration such as PT15M or P3D",
}


_TEXT: dict[type, dict[str, Any]] = {
    Since: {
        "type": "string",
        "description": "a date (2024-01-01), an ISO 8601 instant, or a duration back from now (P30D)",
    },
    OffPeak: {
        "type": "string",
        "pattern": r"^\s*[0-9]{2}:[0-9]{2}\s*-\s*[0-9]{2}:[0-9]{2}\s*$",
        "description": 'hours in UTC such as "02:00-05:00"; null is any time',
    },
}
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def json_schema() -> dict[str, Any]:
    """The schema, in JSON Schema's draft 2020-12.

    It describes each value by itself. ``config validate`` also checks what involves several keys.
    """
    schema = Config.model_json_schema(by_alias=True, schema_generator=_Generator)
    return {"$schema": _DIALECT, "title": "flow-outcomes configuration", **_standard(schema)}


class _Generator(GenerateJsonSchema):
    """Describes a value as the file has it: a duration, an instant or hours are text there."""

    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> JsonSchemaValue:
        del schema
        return dict(_DURATION)

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        return dict(_TEXT[schema["cls"]])

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """Sections under names that the user chooses; no other name is valid."""
        return {**super().dict_schema(schema), "additionalProperties": False}

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """A key that may be left out; a section may also be left empty. Only plain defaults are shown."""
        inner = self.generate_inner(schema["schema"])
        default = schema.get("default")
        if isinstance(default, bool | int | float | str):
            return {**inner, "default": default}
        if schema["schema"]["type"] in {"definition-ref", "model", "dict"}:
            return {"anyOf": [inner, {"type": "null"}]}
        return inner

    def handle_invalid_for_json_schema(self, schema: core_schema.CoreSchema, error_info: str) -> JsonSchemaValue:
        del schema, error_info
        raise PydanticOmit


def _standard(schema: Any) -> Any:  # noqa: ANN401 - a value of JSON
    """The schema in standard terms, without the titles that pydantic makes of the keys."""
    if isinstance(schema, list):
        return [_standard(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    standard = {}
    for key, value in schema.items():
        if key in {"properties", "$defs", "patternProperties"}:
            # Python's \z is the end of the text; without a line break in the text $ is the same.
            standard[key] = {name.replace(r"\z", "$"): _standard(each) for name, each in value.items()}
        elif key != "title":
            standard[_BOUNDS.get(key, key)] = _standard(value)
    return standard
