"""A scene's frames, scored: what calibration learns from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from taidpt.calibration.effective import effective_frames
from taidpt.runtime.errors import InputError
from taidpt.runtime.top_k import refuse_top

if TYPE_CHECKING:
    from taidpt.runtime.sources import Frame, Source
    from taidpt.runtime.tagger import Tagger

__all__ = ["SceneScores", "score_frames"]


@dataclass(frozen=True, eq=False)
class SceneScores:
    """Scores of a scene's frames.

    Attributes:
        scores: [N, C].
        frames: what each frame is called.
        effective_frames: how many independent ones they are worth; each picture is one, and
            videos are judged by the autocorrelation of their scores.
    """

    scores: npt.NDArray[np.float64]
    frames: tuple[str, ...]
    effective_frames: float


def score_frames(tagger: Tagger, sources: list[Source], most: int, batch: int = 8) -> SceneScores:
    """Score frames until there are `most`.

    Args:
        sources: open sources; pictures are called by their file's name, other frames by number.
    Raises:
        InputError: no frame came, or the export returns each frame's best scores alone.
    """
    bundle = tagger.bundle
    refuse_top(bundle.manifest.graph.top_k, bundle.path, "calibration")
    rows: list[npt.NDArray[np.float32]] = []
    frames: list[str] = []
    videos: list[str] = []
    with _frame_bar(sources, most) as bar:
        for group in _batches(sources, most, batch):
            rows.append(tagger.tag_batch([frame.image for frame in group]).scores.copy())
            frames += [_name(frame) for frame in group]
            videos += ["" if frame.time_s is None else frame.source for frame in group]
            bar.update(len(group))
    if not rows:
        raise InputError("no frame to calibrate on; give pictures, a folder or a video")
    scores = np.concatenate(rows).astype(np.float64)
    return SceneScores(scores, tuple(frames), _worth(scores, np.array(videos)))


def _frame_bar(sources: list[Source], most: int) -> Any:
    """A bar on a terminal, nothing elsewhere."""
    from tqdm import tqdm

    totals = [source.total for source in sources]
    known = [total for total in totals if total is not None]
    total = min(most, sum(known)) if len(known) == len(totals) else None
    return tqdm(desc="scoring", total=total, unit="frame", leave=False, disable=None)


def _worth(scores: npt.NDArray[np.float64], videos: npt.NDArray[np.str_]) -> float:
    """Pictures count one each; every video counts by itself."""
    pictures = float((videos == "").sum())
    return pictures + sum(effective_frames(scores[videos == one]) for one in set(videos) - {""})


def _batches(sources: list[Source], most: int, batch: int) -> Iterator[list[Frame]]:
    group: list[Frame] = []
    taken = 0
    for source in sources:
        for frame in source:
            if taken == most:
                break
            group.append(frame)
            taken += 1
            if len(group) == batch:
                yield group
                group = []
    if group:
        yield group


def _name(frame: Frame) -> str:
    return str(frame.index) if frame.time_s is not None else Path(frame.source).name
