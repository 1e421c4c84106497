"""Public names of a package, imported when first used (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from taidpt.runtime.optional import optional_packages

__all__ = ["lazy_names"]


def lazy_names(
    package: str, homes: Mapping[str, tuple[str, ...]], extras: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose names are loaded on first use.

    Args:
        package: the package's `__name__`.
        homes: module inside the package → the names that it provides.
        extras: module → the extra of `taidpt` that it needs.
    Raises:
        MissingDependencyError: on first use of a name, a package that it needs is not installed.
    Returns:
        The two functions, to be assigned in the package's `__init__.py`.
    """
    modules = {name: module for module, names in homes.items() for name in names}

    def get_attribute(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = modules[name]
        with optional_packages(f"{package}.{name}", (extras or {}).get(module, "")):
            value = getattr(importlib.import_module(f"{package}.{module}"), name)
        setattr(sys.modules[package], name, value)
        return value

    def list_names() -> list[str]:
        found = vars(sys.modules[package]).items()
        kept = (name for name, value in found if name[:2] == "__" or isinstance(value, ModuleType))
        return sorted({*kept, *modules})

    return get_attribute, list_names
