"""Your own OpenCV loop: tag each frame, and turn the scores into events.

    python examples/opencv_loop.py street.taidpt clip.mp4
    python examples/opencv_loop.py street.taidpt 0

The second argument is anything that `cv2.VideoCapture` opens: a file, a URL, a camera number.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import cv2
import numpy as np

from taidpt import Tagger, TaidptError
from taidpt.runtime import EventMachine, EventSettings


def frames(source: str) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the time in seconds and the frame as BGR uint8 [H, W, 3]."""
    capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
    if not capture.isOpened():
        sys.exit(f"error: {source}: OpenCV cannot open it; give a video, a URL or a camera number")
    while True:
        time_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
        success, frame = capture.read()
        if not success:
            return
        yield time_s, frame


def main(bundle: str, source: str) -> None:
    """Print each frame's best tag, and the tags that go on or off after smoothing."""
    with Tagger.load(bundle) as tagger:
        on, off = tagger.vocabulary.on, tagger.vocabulary.off
        settings = EventSettings(on, off, smoothing_s=0.3, min_on_s=0.2, min_off_s=0.5)
        machine = EventMachine(tagger.names, settings)
        for time_s, frame in frames(source):
            result = tagger(frame, bgr=True)
            best = result.tags[0]
            events = machine.update([time_s], result.scores[None])
            changes = ", ".join(f"{event.tag} {event.kind}" for event in events)
            print(f"{time_s:.2f} s  best {best.name} {best.score:.2f}  {changes}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except TaidptError as error:  # one line: what is wrong, and what to do
        sys.exit(f"error: {error}")
