"""The text of config.pbtxt: protobuf's text format, of the few messages that a model needs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Name", "message"]


class Name(str):
    """An enum's value, which is written without quotes."""

    __slots__ = ()


def message(fields: Mapping[str, Any], indent: str = "") -> str:
    """Fields of a message, one a line; a list repeats its field, a mapping is a message."""
    lines = []
    for name, value in fields.items():
        repeated = isinstance(value, Sequence) and not isinstance(value, str)
        for item in value if repeated else [value]:
            if isinstance(item, Mapping):
                lines += [f"{indent}{name} {{", message(item, f"{indent}  "), f"{indent}}}"]
            else:
                lines.append(f"{indent}{name}: {_scalar(item)}")
    return "\n".join(line for line in lines if line)


def _scalar(value: Any) -> str:
    if isinstance(value, Name) or not isinstance(value, str):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return json.dumps(value, ensure_ascii=True)
