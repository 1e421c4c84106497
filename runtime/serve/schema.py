"""The part of JSON Schema that the API uses: the same table documents values and checks them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

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

_KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


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
        elif kind == "number":
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
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(_is_kind(value, kind) for kind in kinds):
        raise InputError(f"{where} should be {' or '.join(kinds)}, got {_shown(value)}")
    if "enum" in schema and value not in schema["enum"]:
        raise InputError(f"{where} should be one of {', '.join(map(str, schema['enum']))}")
    if isinstance(value, str):
        _check_text(value, schema, where)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        _check_number(value, schema, where)
    elif isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", math.inf):
            raise InputError(f"{where} has {len(value)} items")
        for index, item in enumerate(value):
            check(item, schema["items"], f"{where}[{index}]")
    elif isinstance(value, dict):
        _check_object(value, schema, where)


def _is_kind(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()  # 1.0 is an integer in JSON Schema
    return isinstance(value, _KINDS[kind])


def _check_text(value: str, schema: Schema, where: str) -> None:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", math.inf):
        raise InputError(f"{where} should have at most {schema.get('maxLength')} letters, not none")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        raise InputError(f"{where} should match {schema['pattern']}, got {_shown(value)}")


def _check_number(value: float, schema: Schema, where: str) -> None:
    least, most = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    if not (math.isfinite(value) and least <= value <= most):
        raise InputError(f"{where} should be from {least} to {most}, got {value}")


def _check_object(value: Mapping[str, Any], schema: Schema, where: str) -> None:
    known = schema["properties"]
    for key in schema.get("required", ()):
        if key not in value:
            raise InputError(f"{where} has no {key!r}")
    for key, item in value.items():
        if key not in known:
            raise InputError(f"{where} has an unknown key {key!r}; keys: {', '.join(known)}")
        check(item, known[key], f"{where}.{key}")


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
