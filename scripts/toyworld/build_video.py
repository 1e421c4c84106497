"""Render the demo video, in which things appear and leave, and its timeline.

The video is square, so that a tagger's usual centre crop shows all of it. Its backgrounds come from
the held-out families.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scripts.toyworld.drawing.backgrounds import draw_background
from scripts.toyworld.drawing.scenes import vary_sprite
from scripts.toyworld.drawing.things import TAG_NAMES, THINGS

__all__ = ["VIDEO_SPLIT", "Actor", "Shot", "demo_shots", "write_video"]

VIDEO_SPLIT = 3
"""First number of the seed of everything drawn in the video."""

SIZE = 480
FRAMES_PER_SECOND = 15
_FADE_S = 0.2  # a thing that appears or leaves does so in a fifth of a second


@dataclass(frozen=True)
class Actor:
    """One thing during the time it is shown.

    Attributes:
        tag: its name.
        start_s, end_s: first and last moment, seconds from the start of the video.
        centre: position at the start, as shares of the side.
        drift: movement per second, as shares of the side.
        share: its longer side, as a share of the video's side.
    """

    tag: str
    start_s: float
    end_s: float
    centre: tuple[float, float]
    drift: tuple[float, float]
    share: float


@dataclass(frozen=True)
class Shot:
    """A stretch of the video over one background."""

    family: str
    start_s: float
    end_s: float
    actors: tuple[Actor, ...]


# family, seconds, then the cast: tag, when it comes, when it leaves (seconds into the shot)
_SCRIPT: tuple[tuple[str, float, str], ...] = (
    ("horizon", 9.0, "dog 0.5 6, frisbee 2 9, person 3.5 9, kite 5.5 9"),
    ("plaid", 8.0, "pizza 0 5, wine glass 1.5 8, banana 3 8, knife 5 8"),
    ("bokeh", 9.0, "car 0 6, bus 2 9, traffic light 3.5 9, bicycle 5 9, stop sign 6.5 9"),
    ("marble", 7.0, "elephant 0.5 7, zebra 2 7, giraffe 3.5 7"),
    ("rings", 7.0, "laptop 0 4.5, cup 1 7, clock 2.5 7, teddy bear 4 7"),
)
_PLACES = ((0.28, 0.3), (0.72, 0.68), (0.72, 0.28), (0.28, 0.72), (0.5, 0.5))


def _cast(line: str) -> list[tuple[str, float, float]]:
    """`"dog 0.5 6, kite 5.5 9"` → tag, in, out."""
    parts = [part.strip().rsplit(" ", 2) for part in line.split(",")]
    return [(tag, float(enter), float(leave)) for tag, enter, leave in parts]


def demo_shots() -> tuple[Shot, ...]:
    """The script with places and sizes filled in."""
    rng = np.random.default_rng((VIDEO_SPLIT, 0))
    shots: list[Shot] = []
    start = 0.0
    for family, seconds, cast in _SCRIPT:
        actors = tuple(
            Actor(
                tag,
                start + enter,
                start + leave,
                place,
                (float(rng.uniform(-0.012, 0.012)), float(rng.uniform(-0.012, 0.012))),
                float(rng.uniform(0.24, 0.36)),
            )
            for (tag, enter, leave), place in zip(_cast(cast), _PLACES, strict=False)
        )
        shots.append(Shot(family, start, start + seconds, actors))
        start += seconds
    return tuple(shots)


def _piece(actor: Actor, number: int) -> Image.Image:
    rng = np.random.default_rng((VIDEO_SPLIT, 1, number))
    thing = TAG_NAMES.index(actor.tag)
    variant = int(rng.integers(len(THINGS[thing].emoji)))
    return vary_sprite(rng, (thing, variant), round(SIZE * actor.share))


def _opacity(actor: Actor, time_s: float) -> float:
    if not actor.start_s <= time_s < actor.end_s:
        return 0.0
    inside = min(time_s - actor.start_s, actor.end_s - time_s)
    return min(1.0, 0.3 + inside / _FADE_S)


def _paste(frame: Image.Image, piece: Image.Image, actor: Actor, time_s: float) -> None:
    opacity = _opacity(actor, time_s)
    if opacity == 0.0:
        return
    age = time_s - actor.start_s
    left, top = (
        round(SIZE * (place + drift * age)) - side // 2
        for place, drift, side in zip(actor.centre, actor.drift, piece.size, strict=True)
    )
    mask = piece.getchannel("A").point(lambda alpha: round(alpha * opacity))
    frame.paste(piece, (left, top), mask)


def demo_frames() -> Iterator[NDArray[np.uint8]]:
    """The video's frames, uint8 RGB [480, 480, 3]."""
    number = 0
    for shot in demo_shots():
        rng = np.random.default_rng((VIDEO_SPLIT, 2, number))
        canvas, _ = draw_background(rng, (SIZE, SIZE), (shot.family,))
        background = Image.fromarray(canvas.astype(np.uint8))
        pieces = [_piece(actor, number + place) for place, actor in enumerate(shot.actors)]
        for index in range(round((shot.end_s - shot.start_s) * FRAMES_PER_SECOND)):
            frame = background.copy()
            for actor, piece in zip(shot.actors, pieces, strict=True):
                _paste(frame, piece, actor, shot.start_s + index / FRAMES_PER_SECOND)
            yield np.asarray(frame)
        number += len(shot.actors)


def write_video(video: Path, timeline: Path) -> int:
    """Write the H.264 video and its timeline; returns how many frames the video has."""
    import av

    count = 0
    with av.open(str(video), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "26", "preset": "slow", "threads": "1"}
        for pixels in demo_frames():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            count += 1
        container.mux(stream.encode())
    spans = [
        {"tag": actor.tag, "start": round(actor.start_s, 3), "end": round(actor.end_s, 3)}
        for shot in demo_shots()
        for actor in shot.actors
    ]
    timeline.write_text(json.dumps(spans, indent=1) + "\n")
    return count
