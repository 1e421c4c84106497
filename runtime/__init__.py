"""What runs on a device: the bundle's format, the tagger, sources, events and sinks.

Importing this package loads neither onnxruntime nor a decoder; each name is loaded when used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taidpt.runtime.bank.class_bank import ClassBank, Threshold
    from taidpt.runtime.bundle.bundle import Bundle, BundleWriter, Manifest
    from taidpt.runtime.errors import (
        BackendError,
        BundleError,
        EngineNotBuiltError,
        InputError,
        MissingDependencyError,
        ParityError,
        TaidptError,
    )
    from taidpt.runtime.events.machine import Event, EventMachine, EventSettings, Interval, timeline
    from taidpt.runtime.preprocess.preprocessor import Preprocessor
    from taidpt.runtime.results import Tag, TagBatch, TagResult
    from taidpt.runtime.sources.open import Frame, open_source
    from taidpt.runtime.tagger.tagger import Tagger

__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "BundleWriter",
    "ClassBank",
    "EngineNotBuiltError",
    "Event",
    "EventMachine",
    "EventSettings",
    "Frame",
    "InputError",
    "Interval",
    "Manifest",
    "MissingDependencyError",
    "ParityError",
    "Preprocessor",
    "Tag",
    "TagBatch",
    "TagResult",
    "Tagger",
    "TaidptError",
    "Threshold",
    "open_source",
    "timeline",
]

_HOMES = {
    "bank": ("ClassBank", "Threshold"),
    "bundle": ("Bundle", "BundleWriter", "Manifest"),
    "errors": (
        "BackendError",
        "BundleError",
        "EngineNotBuiltError",
        "InputError",
        "MissingDependencyError",
        "ParityError",
        "TaidptError",
    ),
    "events": ("Event", "EventMachine", "EventSettings", "Interval", "timeline"),
    "preprocess": ("Preprocessor",),
    "results": ("Tag", "TagBatch", "TagResult"),
    "sources": ("Frame", "open_source"),
    "tagger": ("Tagger",),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
