"""JSON Schemas of the API's values: the same table documents them and checks them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator

from taidpt.runtime.errors import InputError

__all__ = [
    "Schema",
    "array",
    "check",
    "integer",
    "nullable",
    "number",
    "object_of",
    "parse",
    "text",
]

Schema = Mapping[str, Any]

_SHOWN = 60  # letters of a value in an error


def text(description: str, most: int = 200, **more: Any) -> Schema:
    """A string of 1 to `most` letters."""
    return {
        "type": "string",
        "minLength": 1,
        "maxLength": most,
        "description": description,
        **more,
    }


def number(description: str, **more: Any) -> Schema:
    """A number."""
    return {"type": "number", "description": description, **more}


def integer(description: str, least: int, most: int, **more: Any) -> Schema:
    """A whole number."""
    return {
        "type": "integer",
        "minimum": least,
        "maximum": most,
        "description": description,
        **more,
    }


def array(items: Schema, description: str = "", **more: Any) -> Schema:
    """A list."""
    return {"type": "array", "items": items, "description": description, **more}


def nullable(schema: Schema) -> Schema:
    """The same, or null."""
    return {**schema, "type": [schema["type"], "null"]}


def object_of(optional: Mapping[str, Schema] | None = None, /, **required: Schema) -> Schema:
    """An object with these keys and no others."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def parse(written: str, schema: Schema, where: str) -> Any:
    """The value of a parameter in an address.

    Raises:
        InputError: it does not fit the schema.
    """
    kind = schema["type"]
    value: Any = written
    try:
        if kind == "integer" and re.fullmatch(r"-?\d{1,18}", written):
            value = int(written)
        elif kind == "number" and math.isfinite(float(written)):
            value = float(written)
        elif kind == "boolean" and written in ("true", "false"):
            value = written == "true"
    except ValueError:
        pass
    check(value, schema, where)
    return value


def check(value: Any, schema: Schema, where: str) -> None:
    """Check a value against a schema.

    Raises:
        InputError: it does not fit; the message names the place.
    """
    failure = next(Draft202012Validator(dict(schema)).iter_errors(value), None)  # one is enough
    if failure is None:
        return
    steps = (f"[{at}]" if isinstance(at, int) else f".{at}" for at in failure.absolute_path)
    rule, expected = failure.validator, failure.validator_value
    # jsonschema's other messages begin with the whole value, which may be a picture
    reason = f"expected {rule} {expected}, got {repr(failure.instance)[:_SHOWN]}"
    if rule in ("required", "additionalProperties"):
        reason = failure.message
    raise InputError(f"{where}{''.join(steps)}: {reason}")
