"""A frame of any size to the array that the graph takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taidpt.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from taidpt.runtime.preprocess.preprocessor import Preprocessor as Preprocessor

__getattr__, __dir__ = lazy_names(__name__, {"preprocessor": ("Preprocessor",)})
