"""The Python call `taidpt.calibrate`: the options of the command as keyword arguments."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.bank.thresholds import Threshold
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.optional import optional_packages, require_extra

__all__ = ["calibrate"]

StrPath = str | os.PathLike[str]


@optional_packages("taidpt.calibrate", "calibrate")
def calibrate(
    bundle: StrPath,
    frames: StrPath | Iterable[StrPath] = (),
    *,
    bank: StrPath | None = None,
    texts: StrPath | None = None,
    labels: StrPath | None = None,
    every: int = 1,
    max_frames: int = 5000,
    score_transform: str = "none",
) -> dict[str, Threshold]:
    """Set every tag's threshold from unlabelled frames of your scene.

    Args:
        bundle: the folder NAME.taidpt; the thresholds are written into it.
        frames: pictures, folders or videos of the scene.
        bank: a class bank to calibrate in place of the bundle, with the bundle's graph.
        texts: a file of captions that were held out of tuning, in place of frames.
        labels: a CSV file with a few labels: frame,tag,present.
        every, max_frames: use each `every`-th frame, and at most this many.
        score_transform: "auto" chooses a temperature and a bias without labels, and needs `bank`.
    Returns:
        Tag name → threshold, as they are in the bundle or the bank now.
    Raises:
        InputError: nothing can be learned, or a file cannot be used; nothing was written.
        MissingDependencyError: an optional package is not installed.
    """
    require_extra("calibrate", "taidpt.calibrate")
    from taidpt.calibration.job import job_from_options, run_calibrate

    sources = (frames,) if isinstance(frames, (str, os.PathLike)) else tuple(frames)
    paths = {"bank": bank, "texts": texts, "labels": labels}
    options = {
        "sources": tuple(os.fspath(source) for source in sources),
        "every": every,
        "max_frames": max_frames,
        "score_transform": score_transform,
        "quiet": True,
        **{name: None if path is None else os.fspath(path) for name, path in paths.items()},
    }
    run_calibrate(job_from_options(os.fspath(bundle), options))
    if bank is not None:
        changed = ClassBank.load(Path(bank))
        return dict(zip(changed.names, changed.thresholds, strict=True))
    return {tag.name: tag.threshold for tag in Bundle.load(Path(bundle)).manifest.tags}
