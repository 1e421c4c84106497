"""The tagger, and the bank that it scores with now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taidpt.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from taidpt.runtime.tagger.tagger import Tagger as Tagger

__getattr__, __dir__ = lazy_names(__name__, {"tagger": ("Tagger",)})
