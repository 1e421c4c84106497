"""A multi-label tagger for your own tags, tuned from text alone and run without torch.

    prompts = taidpt.tune("tags.yaml", "captions.txt", model="RN50-quickgelu", pretrained="openai")
    bundle = taidpt.export_bundle(prompts, "street.taidpt")
    taidpt.calibrate(bundle.path, "my-street.mp4")
    tagger = taidpt.Tagger.load(bundle.path)
    tagger(frame).tags

Importing this package loads neither torch nor onnxruntime; each name is loaded when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taidpt.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from taidpt.calibration.call import calibrate as calibrate
    from taidpt.export.call import add_engine as add_engine, export_bundle as export_bundle
    from taidpt.runtime import (
        Bundle as Bundle,
        ClassBank as ClassBank,
        Tagger as Tagger,
        TaidptError as TaidptError,
        open_source as open_source,
        read_image as read_image,
    )
    from taidpt.tuning.call import tune as tune

__version__ = "0.1.0"

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "tuning.call": ("tune",),
        "calibration.call": ("calibrate",),
        "export.call": ("add_engine", "export_bundle"),
        "runtime": ("Bundle", "ClassBank", "TaidptError", "Tagger", "open_source", "read_image"),
    },
    extras={"tuning.call": "tune"},
)
