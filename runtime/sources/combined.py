"""Sources made of other sources: a part of each frame, and several sources at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from taidpt.runtime.errors import InputError
from taidpt.runtime.sources.base import (
    LOG,
    Frame,
    Source,
    comma,
    error_to_raise,
)
from taidpt.runtime.stages import Merge

__all__ = ["MergedSource", "RegionSource"]


class RegionSource(Source):
    """A part of each frame of another source."""

    def __init__(self, source: Source, roi: tuple[int, int, int, int]) -> None:
        """Cut out x, y, width, height, in pixels."""
        self.name, self.live, self.threaded = source.name, source.live, source.threaded
        self.reads_ahead, self.total = source.reads_ahead, source.total
        self._source, self._roi = source, roi

    def open(self) -> None:
        """Open the other source."""
        self._source.open()
        self.total = self._source.total

    def frames(self) -> Iterator[Frame]:
        """Cut the part out of each frame; InputError if it is not inside the frame."""
        x, y, width, height = self._roi
        for frame in self._source.frames():
            rows, columns = frame.image.shape[:2]
            if x + width > columns or y + height > rows:
                raise InputError(
                    f"{self.name}: the roi {comma(self._roi)} does not lie inside the frame of "
                    f"{columns}x{rows}"
                )
            part = frame.image[y : y + height, x : x + width]
            yield dataclasses.replace(frame, image=part)

    def close(self) -> None:
        """Close the other source."""
        self._source.close()


class MergedSource(Source):
    """Several sources at once: each is read in a thread of its own, and their frames take turns.

    If none is live, the order of frames is the same in every run. A source that fails is named in
    the log, and the others continue; when all have ended, the first failure is raised. A source is
    opened when its turn comes, and closed at its end.
    """

    reads_ahead = True

    def __init__(self, sources: Sequence[Source], at_once: int | None = None) -> None:
        """Merge sources.

        Args:
            sources: they need not be open.
            at_once: how many are read at a time if none is live; None reads all.
        """
        self.name = f"{len(sources)} sources"
        self._at_once = at_once
        self.live = any(source.live for source in sources)
        self._sources = sources
        self._merge: Merge[Frame] | None = None
        names = [source.name for source in sources]
        # the same camera twice, for two regions of it, must not share its events
        self._labels = [
            name if names.index(name) == number else f"{name} ({names[: number + 1].count(name)})"
            for number, name in enumerate(names)
        ]
        totals = [source.total for source in sources]
        known = [total for total in totals if total is not None]
        self.total = sum(known) if len(known) == len(totals) else None

    def frames(self) -> Iterator[Frame]:
        """Yield the frames of all sources, each source's in order."""
        failures: list[Exception] = []

        def report(number: int, error: Exception) -> None:
            failures.append(error)
            LOG.warning("ended: %s", error)

        live = [source.live for source in self._sources]
        named = [
            _renamed(source, label)
            for source, label in zip(self._sources, self._labels, strict=True)
        ]
        self._merge = Merge(named, live, report, None if self.live else self._at_once)
        yielded = False
        for frame in self._merge:
            yielded = True
            yield frame
        error = error_to_raise(failures, yielded)
        if error is not None:
            raise error

    @property
    def dropped(self) -> int:  # type: ignore[override]  # counted by the merge
        """Frames of live sources that were dropped because newer frames had arrived."""
        return sum(self.dropped_by_source.values())

    @property
    def dropped_by_source(self) -> dict[str, int]:
        """The same by the name of each source that has begun."""
        counts = () if self._merge is None else self._merge.dropped
        return dict(zip(self._labels, counts, strict=False))

    def close(self) -> None:
        """Close all sources."""
        for source in self._sources:
            source.close()


def _renamed(source: Source, label: str) -> Iterator[Frame]:
    for frame in source:
        yield frame if label == source.name else dataclasses.replace(frame, source=label)
