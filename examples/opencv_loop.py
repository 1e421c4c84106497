"""Your own OpenCV loop: tag each frame, and make events of the scores.

    python examples/opencv_loop.py street.taidpt clip.mp4
    python examples/opencv_loop.py street.taidpt 0

The second argument is whatever `cv2.VideoCapture` opens: a file, a URL, a camera's number.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import cv2
import numpy as np

from taidpt.runtime import EventMachine, EventSettings, Tagger


def frames(source: str) -> Iterator[tuple[float, np.ndarray]]:
    """Seconds, and BGR [H, W, 3] as OpenCV gives it."""
    capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
    while True:
        time_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
        there, frame = capture.read()
        if not there:
            return
        yield time_s, frame


def main(bundle: str, source: str) -> None:
    """Look at each frame's best tag; smooth the scores into tags that go on and off."""
    with Tagger.load(bundle) as tagger:
        words = tagger.vocabulary
        settings = EventSettings(words.on, words.off, smoothing_s=0.3, min_on_s=0.2, min_off_s=0.5)
        machine = EventMachine(tagger.names, settings)
        for time_s, frame in frames(source):
            result = tagger(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))  # the tagger takes RGB
            best = result.tags[0]
            events = machine.update([time_s], result.scores[None])
            changes = ", ".join(f"{event.tag} {event.kind}" for event in events)
            print(f"{time_s:.2f} s  best {best.name} {best.score:.2f}  {changes}")


if __name__ == "__main__":
    main(*sys.argv[1:])
