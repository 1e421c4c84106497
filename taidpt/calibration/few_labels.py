"""A handful of labels on top of what the unlabelled frames said."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from taidpt.calibration.decision import decide
from taidpt.calibration.estimator import Calibration, TagCalibration
from taidpt.calibration.hierarchy import compress
from taidpt.runtime.errors import InputError

__all__ = ["PRIOR_STRENGTH", "read_labels", "refine"]

Floats = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int8]

PRIOR_STRENGTH = 20.0  # the unlabelled estimate counts as this many labels
_ISOTONIC_FROM = 30  # labels of either kind before the curve may take any rising shape
_EDGE = 1e-6


def read_labels(path: str | Path, frames: Sequence[str], names: tuple[str, ...]) -> Targets:
    """Read a CSV with the columns frame, tag, present.

    Args:
        path: a CSV file; present is 1 or 0 (or −1).
        frames: how the file may call each frame.
        names: the tags.
    Returns:
        1, −1, or 0 where nothing is said, int8 [N, C].
    Raises:
        InputError: it cannot be read, or names a frame or a tag that there is not.
    """
    rows = {name: index for index, name in enumerate(frames)}
    columns = {name: index for index, name in enumerate(names)}
    labels = np.zeros((len(frames), len(names)), np.int8)
    try:
        with Path(path).open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            missing = {"frame", "tag", "present"} - set(reader.fieldnames or ())
            if missing:
                raise InputError(f"{path}: no column {', '.join(sorted(missing))}")
            for line, row in enumerate(reader, start=2):
                place = f"{path}, line {line}"
                frame = _find(rows, row["frame"], "frame", place)
                labels[frame, _find(columns, row["tag"], "tag", place)] = _sign(row, place)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read the labels: {error}") from None
    return labels


def refine(calibration: Calibration, scores: Floats, labels: Targets) -> Calibration:
    """Move each labelled tag's map, and its thresholds with it.

    The map so far is a beta prior of 20 pseudo-labels spread over the tag's scores; Platt's
    logistic curve, or with 30 labels of both kinds an isotonic one, is fitted to those and the
    labels. A tag without labels stays as it is.

    Args:
        scores: of all frames, [N, C]. labels: 1, −1, or 0 for unknown, [N, C].
    """
    if labels.shape != scores.shape:
        raise InputError(
            f"labels {list(labels.shape)} and scores {list(scores.shape)} should be of one shape"
        )
    tags = [
        _refine_tag(tag, scores[:, index], labels[:, index]) if labels[:, index].any() else tag
        for index, tag in enumerate(calibration.tags)
    ]
    return dataclasses.replace(calibration, tags=tuple(tags))


def _refine_tag(tag: TagCalibration, scores: Floats, labels: Targets) -> TagCalibration:
    sample = compress(scores[:, None])
    values, counts = sample.values[0], sample.counts[0]
    if values[0] == values[-1]:
        return tag
    before = np.interp(values, tag.scores, tag.probabilities)
    weights = PRIOR_STRENGTH * counts / counts.sum()
    known = labels != 0
    after = _fit_curve(
        np.concatenate([values, values, scores[known]]),
        np.concatenate([np.ones_like(values), np.zeros_like(values), labels[known] > 0]),
        np.concatenate([weights * before, weights * (1 - before), np.ones(int(known.sum()))]),
        values,
        isotonic=min((labels > 0).sum(), (labels < 0).sum()) >= _ISOTONIC_FROM,
    )
    decision = decide(sample, after[None])[0]
    return dataclasses.replace(
        tag,
        on=decision.on,
        off=decision.off,
        band=decision.band,
        state="seen" if (labels > 0).any() or decision.highest >= 0.5 else tag.state,
        expected_share=float(decision.expected_sightings / counts.sum()),
        expected_f1=decision.expected_f1,
        sureness=_sureness(tag, labels),
        scores=tuple(decision.curve[0].tolist()),
        probabilities=tuple(decision.curve[1].tolist()),
    )


def _sureness(tag: TagCalibration, labels: Targets) -> str:
    """One step surer with a label of each kind, and sure with as many as the prior counts for."""
    fewest = int(min((labels > 0).sum(), (labels < 0).sum()))
    if fewest >= PRIOR_STRENGTH / 2:
        return "high"
    return "medium" if fewest >= 1 and tag.sureness == "low" else tag.sureness


def _fit_curve(x: Floats, y: Floats, weights: Floats, at: Floats, isotonic: bool) -> Floats:
    """Probabilities at some scores, from weighted 0-1 observations."""
    if isotonic:
        from sklearn.isotonic import IsotonicRegression

        model = IsotonicRegression(y_min=_EDGE, y_max=1 - _EDGE, out_of_bounds="clip")
        return np.asarray(model.fit(x, y, sample_weight=weights).predict(at))
    from sklearn.linear_model import LogisticRegression

    middle, spread = np.average(x, weights=weights), x.std()
    model = LogisticRegression(C=1e3, max_iter=500)
    model.fit(((x - middle) / spread)[:, None], y, sample_weight=weights)
    return np.asarray(model.predict_proba(((at - middle) / spread)[:, None])[:, 1])


def _find(index: dict[str, int], key: str | None, what: str, place: str) -> int:
    found = index.get((key or "").strip())
    if found is None:
        some = ", ".join(list(index)[:4])
        raise InputError(f"{place}: no {what} {key!r}; they are called like {some}")
    return found


def _sign(row: dict[str, str], place: str) -> int:
    signs = {"1": 1, "0": -1, "-1": -1}
    value = (row["present"] or "").strip()
    if value not in signs:
        raise InputError(f"{place}: present should be 1 or 0, got {value!r}")
    return signs[value]
