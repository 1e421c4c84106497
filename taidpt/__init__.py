"""A multi-label tagger for your own tags, tuned from text alone and run without torch."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
