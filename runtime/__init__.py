"""What runs on a device: the bundle's format, the tagger, sources, events and sinks.

Importing this package loads neither onnxruntime nor a decoder; each name is loaded when used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taidpt.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from taidpt.runtime.bank import (
        ClassBank as ClassBank,
        Threshold as Threshold,
    )
    from taidpt.runtime.bundle import (
        Bundle as Bundle,
        BundleWriter as BundleWriter,
        Manifest as Manifest,
    )
    from taidpt.runtime.errors import (
        BackendError as BackendError,
        BundleError as BundleError,
        EngineNotBuiltError as EngineNotBuiltError,
        InputError as InputError,
        MissingDependencyError as MissingDependencyError,
        ParityError as ParityError,
        TaidptError as TaidptError,
    )
    from taidpt.runtime.events import (
        Event as Event,
        EventMachine as EventMachine,
        EventSettings as EventSettings,
        Interval as Interval,
        timeline as timeline,
    )
    from taidpt.runtime.preprocess import (
        Preprocessor as Preprocessor,
    )
    from taidpt.runtime.results import (
        Tag as Tag,
        TagBatch as TagBatch,
        TagResult as TagResult,
    )
    from taidpt.runtime.sources import (
        Frame as Frame,
        open_source as open_source,
        read_image as read_image,
    )
    from taidpt.runtime.tagger import (
        Tagger as Tagger,
    )

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "bank": (
            "ClassBank",
            "Threshold",
        ),
        "bundle": (
            "Bundle",
            "BundleWriter",
            "Manifest",
        ),
        "errors": (
            "BackendError",
            "BundleError",
            "EngineNotBuiltError",
            "InputError",
            "MissingDependencyError",
            "ParityError",
            "TaidptError",
        ),
        "events": (
            "Event",
            "EventMachine",
            "EventSettings",
            "Interval",
            "timeline",
        ),
        "preprocess": ("Preprocessor",),
        "results": (
            "Tag",
            "TagBatch",
            "TagResult",
        ),
        "sources": (
            "Frame",
            "open_source",
            "read_image",
        ),
        "tagger": ("Tagger",),
    },
)
