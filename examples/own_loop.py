"""Frames from your own loop (OpenCV, a driver, a simulator): tag them, and make events of them.

    python examples/own_loop.py street.taidpt

OpenCV gives blue first: turn it with `frame[:, :, ::-1]`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

from taidpt.runtime import EventMachine, EventSettings, Tagger


def frames() -> Iterator[tuple[float, np.ndarray]]:
    """Stands for your camera: seconds, and uint8 RGB [H, W, 3] of any size."""
    for index in range(50):
        yield index / 10, np.full((480, 640, 3), 5 * index, np.uint8)


def main(bundle: str) -> None:
    """Tag each frame, look at its best tag, and smooth the scores into events."""
    with Tagger.load(bundle) as tagger:
        words = tagger.vocabulary
        settings = EventSettings(words.on, words.off, smoothing_s=0.3, min_on_s=0.2, min_off_s=0.5)
        machine = EventMachine(tagger.names, settings)
        for time_s, frame in frames():
            result = tagger(frame)
            best = result.tags[0]
            events = machine.update([time_s], result.scores[None])
            changes = ", ".join(f"{event.tag} {event.kind}" for event in events)
            print(f"{time_s:.1f} s  best {best.name} {best.score:.2f}  {changes}")


if __name__ == "__main__":
    main(*sys.argv[1:])
