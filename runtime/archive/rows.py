"""Scores, events and errors of clips as Arrow record batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from taidpt.runtime.archive.features import StoredFeatures, encode_features, feature_columns
from taidpt.runtime.archive.inputs import Clip
from taidpt.runtime.archive.schema import FeatureLayout, table_schemas
from taidpt.runtime.events.machine import Event, EventMachine, Interval, timeline
from taidpt.runtime.results import TagResult, Vocabulary
from taidpt.runtime.stream.stream import StreamSettings

__all__ = ["ClipEvents", "FrameRows", "RowMaker"]

Scores = npt.NDArray[np.float32]


@dataclass
class FrameRows:
    """Frames of one clip that wait to become rows."""

    indices: list[int] = field(default_factory=list)
    times_s: list[float | None] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    features: list[StoredFeatures] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.indices)

    def add(
        self, index: int, time_s: float | None, result: TagResult, layout: FeatureLayout
    ) -> None:
        """Append a frame."""
        self.indices.append(index)
        self.times_s.append(time_s)
        self.scores.append(result.scores)
        if layout.kind != "none":
            assert result.global_features is not None  # `layout_of` has checked it
            whole, patches = result.global_features, result.patch_features
            self.features.append(encode_features(whole, patches, layout))


class RowMaker:
    """Makes the rows of an archive's tables."""

    def __init__(self, layout: FeatureLayout, top: int | None) -> None:
        """Prepare.

        Args:
            layout: which features are stored.
            top: number of best tags that a frame's row holds; None: all.
        """
        self.layout, self._top = layout, top
        self.schemas = table_schemas(layout)

    def frames(self, clip: str, rows: FrameRows, vocabulary: Vocabulary) -> Any:
        """Rows of the table of frames."""
        columns = [
            _repeat(clip, len(rows)),
            pa.array(rows.indices, pa.int64()),
            pa.array(rows.times_s, pa.float64()),
            self._best(np.stack(rows.scores), vocabulary),
            *feature_columns(rows.features, self.layout),
        ]
        return pa.record_batch(columns, schema=self.schemas["frames"])

    def events(self, clip: str, intervals: Iterable[Interval], vocabulary: Vocabulary) -> Any:
        """Rows of the table of events, from a timeline."""
        rows = [
            {
                "clip": clip,
                "tag": interval.tag,
                "start_s": interval.start_s,
                "end_s": interval.end_s,
                "peak": interval.peak,
                "probability": vocabulary.probability(
                    vocabulary.index(interval.tag), interval.peak
                ),
                "open": interval.open,
            }
            for interval in intervals
        ]
        return self._batch("events", rows)

    def picture_events(self, clip: str, scores: Scores, vocabulary: Vocabulary) -> Any:
        """Rows of the table of events for a picture: its tags that are on, without times."""
        rows = [
            {
                "clip": clip,
                "tag": vocabulary.names[index],
                "peak": float(scores[index]),
                "probability": vocabulary.probability(index, float(scores[index])),
                "open": False,
            }
            for index in np.flatnonzero(vocabulary.on_tags(scores, None)).tolist()
        ]
        return self._batch("events", rows)

    def error(self, clip: str, reason: str, frames: int) -> Any:
        """One row of the table of errors."""
        reason = reason.encode("utf-8", "backslashreplace").decode()
        return self._batch("errors", [{"clip": clip, "reason": reason, "frames": frames}])

    def manifest(self, clip: Clip, frames: int, end_s: float | None) -> Any:
        """One row of the manifest."""
        row = {
            "clip": clip.name,
            "bytes": clip.size,
            "modified_ns": clip.modified_ns,
            "frames": frames,
            "end_s": end_s,
        }
        return self._batch("manifest", [row])

    def _batch(self, table: str, rows: Sequence[dict[str, Any]]) -> Any:
        return pa.RecordBatch.from_pylist(list(rows), schema=self.schemas[table])

    def _best(self, scores: Scores, vocabulary: Vocabulary) -> Any:
        """The column `top` of N frames, best score first, equal scores in the bank's order."""
        frames, tags = scores.shape
        count = tags if self._top is None else min(self._top, tags)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        best = np.take_along_axis(scores, order, axis=1).ravel()
        chosen = order.ravel()
        fields = self.schemas["frames"].field("top").type.value_type
        struct = pa.StructArray.from_arrays(
            [
                pa.array(vocabulary.names, pa.string()).take(pa.array(chosen)),
                pa.array(best, pa.float32()),
                pa.array(best >= vocabulary.on[chosen], pa.bool_()),
                _probabilities(chosen, best, vocabulary),
            ],
            fields=[fields.field(index) for index in range(fields.num_fields)],
        )
        offsets = pa.array(np.arange(frames + 1, dtype=np.int32) * count)
        kind = self.schemas["frames"].field("top").type
        return pa.ListArray.from_arrays(offsets, struct, type=kind)


class ClipEvents:
    """Events of one clip, from the scores of its frames."""

    def __init__(self, rows: RowMaker, vocabulary: Vocabulary, settings: StreamSettings) -> None:
        self._rows, self._vocabulary = rows, vocabulary
        thresholds = settings.event_settings(vocabulary.on, vocabulary.off)
        self._machine = EventMachine(vocabulary.names, thresholds)
        self._events: list[Event] = []
        self._last: Scores | None = None
        self.end_s: float | None = None

    def add(self, times_s: Sequence[float | None], scores: Scores) -> None:
        """Take the next frames: N times, all None for pictures, and scores [N, C]."""
        self._last, self.end_s = scores[-1], times_s[-1]
        if self.end_s is not None:
            self._events += self._machine.update(np.array(times_s, np.float64), scores)

    def batch(self, clip: str) -> Any:
        """Rows of the table of events; None where there were no frames."""
        if self._last is None:
            return None
        if self.end_s is None:
            return self._rows.picture_events(clip, self._last, self._vocabulary)
        found = timeline(self._events, self.end_s)
        return self._rows.events(clip, found, self._vocabulary)


def _probabilities(chosen: npt.NDArray[Any], scores: Scores, vocabulary: Vocabulary) -> Any:
    """Calibrated probabilities; null before calibration."""
    values = np.zeros(len(chosen), np.float32)
    missing = np.ones(len(chosen), bool)
    for index in np.unique(chosen).tolist():
        places = np.flatnonzero(chosen == index)
        found = vocabulary.probabilities(index, scores[places])
        if found is not None:
            values[places], missing[places] = found, False
    return pa.array(values, pa.float32(), mask=missing)


def _repeat(text: str, count: int) -> Any:
    return pa.array([text], pa.string()).take(pa.array(np.zeros(count, np.int32)))
