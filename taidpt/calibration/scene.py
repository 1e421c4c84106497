"""A scene's frames, scored: what calibration learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from taidpt.calibration.statistics.effective import effective_frames
from taidpt.runtime.errors import InputError
from taidpt.runtime.stream.frame_batches import read_frames
from taidpt.runtime.top_k import refuse_top

if TYPE_CHECKING:
    from taidpt.label_file import LabelFile
    from taidpt.runtime.sources.base import Frame, Source
    from taidpt.runtime.tagger.tagger import Tagger

__all__ = ["SceneScores", "refuse_unknown_frames", "score_frames", "video_of", "worth"]

Floats = npt.NDArray[np.float64]

_NOISE = 1e-5  # of the largest score: what a graph in float32 gives for the same frame twice


@dataclass(frozen=True, eq=False)
class SceneScores:
    """Scores of a scene's frames, [N, C], and what each frame is called.

    Attributes:
        effective_frames: how many independent ones they are worth.
        problem: the error of a source that ended early, to be raised after these are used.
    """

    scores: Floats
    frames: tuple[str, ...]
    effective_frames: float
    problem: InputError | None = None


def score_frames(
    tagger: Tagger, sources: list[Source], most: int, use: str = "calibration"
) -> SceneScores:
    """Score frames until there are `most`; a tag whose scores move by rounding alone stays still.

    Args:
        sources: pictures are called by their file's name, other frames by number.
        use: what the scores are for, as errors call it.
    Raises:
        InputError: no frame came, or the export returns each frame's best scores alone.
    """
    refuse_top(tagger.bundle.manifest.graph.top_k, tagger.bundle.path, use)
    frames: list[str] = []
    videos: list[str] = []

    def read(group: list[Frame]) -> Any:
        frames.extend(map(_name, group))
        videos.extend(map(video_of, group))
        return tagger.tag_batch([frame.image for frame in group]).scores.copy()

    rows, problem = read_frames(sources, most, read)
    scores = _stilled(np.concatenate(rows).astype(np.float64))
    return SceneScores(scores, tuple(frames), worth(scores, videos), problem)


def _stilled(scores: Floats) -> Floats:
    still = np.ptp(scores, axis=0) < _NOISE * np.abs(scores).max()
    return np.where(still, np.median(scores, axis=0), scores)


def refuse_unknown_frames(labels: LabelFile, sources: list[Source], every: int, most: int) -> None:
    """Raise InputError where labels are of frames that will not come, as far as that is known."""
    from taidpt.runtime.sources.pictures import ImageSource

    pictures = [source for source in sources if isinstance(source, ImageSource)]
    if len(pictures) == len(sources):
        labels.of([path.name for source in pictures for path in source.wanted][:most])
    elif not pictures:
        labels.refuse_numbers(every, most)


def video_of(frame: Frame) -> str:
    """The video that a frame is of; "" where it is a picture."""
    return "" if frame.time_s is None else frame.source


def worth(scores: Floats, videos: Sequence[str]) -> float:
    """How many independent frames these are: pictures count one each, each video by itself.

    Args:
        scores: [N, C]. videos: N, as `video_of` gives them.
    """
    of = np.array(videos)
    pictures = float((of == "").sum())
    return pictures + sum(effective_frames(scores[of == one]) for one in set(videos) - {""})


def _name(frame: Frame) -> str:
    return str(frame.index) if frame.time_s is not None else Path(frame.source).name
