"""Tags an endless camera whose tags go on and off all the time; killed by `test_kills.py`.

python -m tests.hostile.killed_camera STATE EVENTS FRAMES
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from taidpt.runtime.bank.thresholds import Threshold
from taidpt.runtime.results import TagResult, Vocabulary
from taidpt.runtime.sinks.csv_table import CsvSink
from taidpt.runtime.sinks.jsonl import EventsSink, JsonlSink
from taidpt.runtime.sources.base import Frame, Source
from taidpt.runtime.stream.stream import Stream, StreamSettings
from taidpt.runtime.tag.job import _Run, _run_source
from taidpt.runtime.tag.state_file import StateFile

TAGS = ("a", "b", "c")


class Camera(Source):
    """A frame each 2 ms; its first pixels say which tags are seen."""

    name, live, threaded = "camera", True, False

    def frames(self) -> Iterator[Frame]:
        for index in itertools.count():
            seen = [(index // period) % 2 for period in (7, 11, 13)]
            time.sleep(0.002)
            yield Frame(np.array([[seen]], np.uint8), index / 25, index, self.name)


class PixelTagger:
    """A tagger without a model: a tag's score is its pixel."""

    bundle: Any = SimpleNamespace(
        manifest=SimpleNamespace(graph=SimpleNamespace(top_k=None)), path="none"
    )
    vocabulary = Vocabulary(TAGS, [Threshold(0.5, 0.5, "test")] * 3, [None] * 3, (1, 1))

    def preprocess(self, frame: Any) -> Any:
        return frame

    def tag_batch(self, frames: Any) -> Sequence[TagResult]:
        features = np.zeros((1, 2), np.float32)
        return [
            TagResult(frame[0, 0].astype(np.float32), features, None, self.vocabulary)
            for frame in frames
        ]

    def remember(self, result: TagResult) -> None:
        pass


def main(state_path: str, events_path: str, frames_path: str) -> None:
    """Run until killed."""
    resume = Path(state_path).exists()
    sinks = [
        EventsSink(events_path, resume),
        JsonlSink(frames_path, append=resume),
        CsvSink(f"{frames_path}.csv", resume),
    ]
    settings = StreamSettings(smoothing_s=0.0, min_on_s=0.0, min_off_s=0.0)
    stream = Stream(PixelTagger(), Camera(), settings)
    state = StateFile(state_path, stream)
    _run_source(stream, sinks, _Run(sinks), state)


if __name__ == "__main__":
    main(*sys.argv[1:])
