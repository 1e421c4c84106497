"""Features of what a running tagger has seen lately: the scene, for tags that pictures teach."""

from __future__ import annotations

import time
from collections import deque

import numpy as np
import numpy.typing as npt

from taidpt.runtime.adapting.similarity import Features
from taidpt.runtime.results import TagResult

__all__ = ["RecentFrames"]

# Half a minute: long enough that a passing thing is in few frames. Sixteen frames of 196 patches of
# 512 numbers are 3 MB.
_COUNT, _SECONDS = 16, 2.0
_LEAST = 4  # with fewer, one passing thing is the scene


class RecentFrames:
    """Keeps the features of a frame every two seconds, and of sixteen at most.

    One thread offers, any thread may read.
    """

    def __init__(self) -> None:
        self._kept: deque[tuple[npt.NDArray[np.float32], npt.NDArray[np.float16]]] = deque(
            maxlen=_COUNT
        )
        self._due = float("-inf")

    def offer(self, result: TagResult) -> None:
        """Keep the features of a frame if it is time; graphs without global features give none."""
        now = time.monotonic()
        if now < self._due or result.global_features is None:
            return
        self._due = now + _SECONDS
        self._kept.append((result.global_features.copy(), result.patch_features.astype(np.float16)))

    def features(self) -> Features | None:
        """The frames kept, or None while they are fewer than four."""
        kept = list(self._kept)
        if len(kept) < _LEAST:
            return None
        whole, patches = zip(*kept, strict=True)
        return Features(np.stack(whole), np.stack(patches))
