"""What runs on a device: the bundle's format, the tagger, sources, events and sinks.

Importing this package loads neither onnxruntime nor a decoder; each name is loaded when used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taidpt.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from taidpt.runtime.bank import (
        ClassBank as ClassBank,
    )
    from taidpt.runtime.bank import (
        Threshold as Threshold,
    )
    from taidpt.runtime.bundle import (
        Bundle as Bundle,
    )
    from taidpt.runtime.bundle import (
        BundleWriter as BundleWriter,
    )
    from taidpt.runtime.bundle import (
        Manifest as Manifest,
    )
    from taidpt.runtime.errors import (
        BackendError as BackendError,
    )
    from taidpt.runtime.errors import (
        BundleError as BundleError,
    )
    from taidpt.runtime.errors import (
        EngineNotBuiltError as EngineNotBuiltError,
    )
    from taidpt.runtime.errors import (
        InputError as InputError,
    )
    from taidpt.runtime.errors import (
        MissingDependencyError as MissingDependencyError,
    )
    from taidpt.runtime.errors import (
        ParityError as ParityError,
    )
    from taidpt.runtime.errors import (
        TaidptError as TaidptError,
    )
    from taidpt.runtime.events import (
        Event as Event,
    )
    from taidpt.runtime.events import (
        EventMachine as EventMachine,
    )
    from taidpt.runtime.events import (
        EventSettings as EventSettings,
    )
    from taidpt.runtime.events import (
        Interval as Interval,
    )
    from taidpt.runtime.events import (
        timeline as timeline,
    )
    from taidpt.runtime.preprocess import (
        Preprocessor as Preprocessor,
    )
    from taidpt.runtime.results import (
        Tag as Tag,
    )
    from taidpt.runtime.results import (
        TagBatch as TagBatch,
    )
    from taidpt.runtime.results import (
        TagResult as TagResult,
    )
    from taidpt.runtime.sources import (
        Frame as Frame,
    )
    from taidpt.runtime.sources import (
        open_source as open_source,
    )
    from taidpt.runtime.sources import (
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
