"""What runs on a device: the bundle's format, the tagger, sources, events and sinks.

Importing this package loads neither onnxruntime nor a decoder; each name is loaded when used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taidpt.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from taidpt.runtime.bank.class_bank import ClassBank as ClassBank
    from taidpt.runtime.bank.thresholds import Threshold as Threshold
    from taidpt.runtime.bundle.bundle import Bundle as Bundle
    from taidpt.runtime.bundle.manifest import Manifest as Manifest
    from taidpt.runtime.bundle.writer import BundleWriter as BundleWriter
    from taidpt.runtime.errors import (
        BackendError as BackendError,
        BundleError as BundleError,
        EngineNotBuiltError as EngineNotBuiltError,
        InputError as InputError,
        MissingDependencyError as MissingDependencyError,
        ParityError as ParityError,
        TaidptError as TaidptError,
    )
    from taidpt.runtime.events.machine import (
        Event as Event,
        EventMachine as EventMachine,
        EventSettings as EventSettings,
        Interval as Interval,
        timeline as timeline,
    )
    from taidpt.runtime.painting.drawing import (
        paint_heatmap as paint_heatmap,
        rgb_image as rgb_image,
    )
    from taidpt.runtime.preprocess.preprocessor import Preprocessor as Preprocessor
    from taidpt.runtime.results import Tag as Tag, TagBatch as TagBatch, TagResult as TagResult
    from taidpt.runtime.sources.base import (
        Frame as Frame,
        Source as Source,
        SourceOptions as SourceOptions,
    )
    from taidpt.runtime.sources.combined import MergedSource as MergedSource
    from taidpt.runtime.sources.open import open_source as open_source
    from taidpt.runtime.sources.picture_files import read_image as read_image
    from taidpt.runtime.stream.stream import Stream as Stream, StreamSettings as StreamSettings
    from taidpt.runtime.tagger.tagger import Tagger as Tagger

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "bank.class_bank": ("ClassBank",),
        "bank.thresholds": ("Threshold",),
        "bundle.bundle": ("Bundle",),
        "bundle.manifest": ("Manifest",),
        "bundle.writer": ("BundleWriter",),
        "errors": (
            "BackendError",
            "BundleError",
            "EngineNotBuiltError",
            "InputError",
            "MissingDependencyError",
            "ParityError",
            "TaidptError",
        ),
        "events.machine": ("Event", "EventMachine", "EventSettings", "Interval", "timeline"),
        "preprocess.preprocessor": ("Preprocessor",),
        "results": ("Tag", "TagBatch", "TagResult"),
        "painting.drawing": ("paint_heatmap", "rgb_image"),
        "sources.base": ("Frame", "Source", "SourceOptions"),
        "sources.combined": ("MergedSource",),
        "sources.open": ("open_source",),
        "sources.picture_files": ("read_image",),
        "stream.stream": ("Stream", "StreamSettings"),
        "tagger.tagger": ("Tagger",),
    },
)
