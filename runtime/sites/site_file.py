"""`site.yaml`: read into `SiteConfig`; every error names its line."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taidpt.runtime.errors import InputError
from taidpt.runtime.optional import optional_packages
from taidpt.runtime.sites.config import ItemError, SiteConfig
from taidpt.runtime.storage.regular_file import read_regular

__all__ = ["read_site"]

# A site of a hundred cameras has some tens of kilobytes; YAML's aliases can make a small file huge.
_LARGEST = 1 << 20


def read_site(path: str, given: Mapping[str, Any]) -> SiteConfig:
    """Read a configuration.

    Args:
        path: the YAML file. Keys are those of `SiteConfig`; files in it are relative to it.
        given: values that take the place of the file's.
    Raises:
        InputError: the file cannot be read; or a line of it has an unknown key or a value that does
            not fit.
    """
    with optional_packages("--config", "serve"):
        import yaml
    try:
        data = read_regular(Path(path))
        if len(data) > _LARGEST:
            raise InputError(f"{path}: larger than {_LARGEST >> 20} MiB")
        root = yaml.compose(data.decode("utf-8-sig"), yaml.SafeLoader)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        raise InputError(f"{path}{line}: not YAML: {getattr(error, 'problem', error)}") from None
    if root is None:
        raise InputError(f"{path}: is empty; it needs `bundle` and `cameras`")
    config: SiteConfig = _Reader(path).read(root, SiteConfig, "the file", given)
    return config


class _Reader:
    """Nodes of YAML → dataclasses, by the annotations of their fields."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lines: dict[int, int] = {}  # of each object, by its `id`

    def read(self, node: Any, kind: Any, where: str, given: Mapping[str, Any] | None = None) -> Any:
        """A value of this type."""
        origin = typing.get_origin(kind)
        if origin in (types.UnionType, typing.Union):
            if node.tag == "tag:yaml.org,2002:null":
                return None
            (kind,) = (inner for inner in typing.get_args(kind) if inner is not type(None))
            return self.read(node, kind, where)
        if origin is tuple:
            return self._tuple(node, typing.get_args(kind), where)
        if dataclasses.is_dataclass(kind):
            return self._object(node, kind, where, given or {})
        return self._scalar(node, kind, where)

    def _object(self, node: Any, kind: Any, where: str, given: Mapping[str, Any]) -> Any:
        if node.id != "mapping":
            self._fail(node, where, "keys and values", node)
        types_of = typing.get_type_hints(kind)
        known = {field.name.rstrip("_"): field.name for field in dataclasses.fields(kind)}
        values = dict(given)
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]}?" if close else f"keys: {', '.join(known)}"
                self._fail_at(key, f"{where} has no key {name!r}; {hint}")
            if name in seen:
                self._fail_at(key, f"{name!r} stands twice")
            seen.add(name)
            if known[name] not in given:
                values[known[name]] = self.read(value, types_of[known[name]], name)
        for field in dataclasses.fields(kind):
            required = field.default is field.default_factory is dataclasses.MISSING
            if required and field.name not in values:
                self._fail_at(node, f"{where} needs the key {field.name.rstrip('_')!r}")
        try:
            made = kind(**values)
        except InputError as error:
            if str(error).startswith(f"{self._path}:"):
                raise
            line = _line(node)
            if isinstance(error, ItemError):
                line = self._lines.get(id(error.item), line)
            raise InputError(f"{self._path}:{line}: {error}") from None
        self._lines[id(made)] = _line(node)
        return made

    def _tuple(self, node: Any, kinds: tuple[Any, ...], where: str) -> tuple[Any, ...]:
        if node.id != "sequence":
            self._fail(node, where, "a list", node)
        if kinds[-1] is Ellipsis:
            kinds = (kinds[0],) * len(node.value)
        if len(kinds) != len(node.value):
            self._fail_at(node, f"{where} should be a list of {len(kinds)}, not {len(node.value)}")
        return tuple(
            self.read(item, kind, where) for item, kind in zip(node.value, kinds, strict=True)
        )

    def _scalar(self, node: Any, kind: type, where: str) -> Any:
        tag = node.tag.rpartition(":")[2]
        expected = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
        if node.id != "scalar":
            self._fail(node, where, expected[kind], node)
        fits = {str: ("str", "int", "float", "timestamp"), int: ("int",), bool: ("bool",)}
        if tag not in fits.get(kind, ("int", "float")):
            self._fail(node, where, expected[kind], node)
        if kind is bool:
            return node.value.lower() in ("true", "yes", "on")
        try:
            return kind(node.value.replace("_", "") if kind is not str else node.value)
        except ValueError:
            self._fail(node, where, expected[kind], node)

    def _fail(self, node: Any, where: str, expected: str, found: Any) -> typing.NoReturn:
        shown = repr(found.value) if found.id == "scalar" else f"a {found.id}"
        self._fail_at(node, f"{where} should be {expected}, got {shown}")

    def _fail_at(self, node: Any, message: str) -> typing.NoReturn:
        raise InputError(f"{self._path}:{_line(node)}: {message}")


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1
