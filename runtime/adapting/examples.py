"""A tag from example pictures: what they have in common and the scene's frames lack."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.adapting.similarity import Features, bank_scores
from taidpt.runtime.bank.class_bank import ClassBank, Threshold, join_banks
from taidpt.runtime.bundle.scoring import Scoring
from taidpt.runtime.errors import InputError

__all__ = ["examples_to_bank", "put_tags"]

# Share of a picture's patches that show the object: those most like the row of the whole picture.
_OBJECT_SHARE = 0.1
# The tag switches off below the threshold by this share of the gap between examples and scene.
_BAND = 0.2
# The rows that a tag has already count as much as this many pictures: of 2, 5, 10 and 20, the best
# on the toy world for 1, 5 and 20 examples (templates gain 1 to 5 points, tuned rows 0).
_PRIOR_PICTURES = 20

Floats = npt.NDArray[np.float32]


def examples_to_bank(
    name: str, shown: Features, scene: Features, bank: ClassBank, scoring: Scoring
) -> ClassBank:
    """The bank of one tag.

    Pictures of one model have a large feature in common, so the rows are the difference of the
    examples' mean feature from that of the scene. Where the bank has the tag, its rows are the
    prior: they point to the patches that show it, and count as twenty pictures. The threshold lies
    in the middle between the lowest score of an example and the highest of a frame of the scene, or
    between their means where these overlap.

    Args:
        name: the tag's name.
        shown: E pictures that show it.
        scene: frames that do not show it.
        bank: the other tags, and maybe this one; stays as it is.
        scoring: of the bundle that scores with the bank.
    Raises:
        InputError: the examples look like the scene.
    """
    index = bank.names.index(name) if name in bank.names else None
    rows = _rows(shown, scene, None if index is None else bank.local_embeddings[index])
    if index is not None:
        share = len(shown) / (len(shown) + _PRIOR_PICTURES)
        rows = {
            part: _unit((1 - share) * getattr(bank, part)[index] + share * row)
            for part, row in rows.items()
        }
    arrays = {part: row[None] for part, row in rows.items()}
    own = np.median(bank.scale) if index is None else bank.scale[index]
    made = ClassBank.from_rows(
        (name,),
        **arrays,
        scale=np.full(1, own, np.float32),
        thresholds=(Threshold(0.0, 0.0, "none yet"),),
        metadata=bank.metadata,
    )
    trial = put_tags(bank, made)
    place = trial.names.index(name)
    seen, unseen = (bank_scores(one, trial, scoring)[:, place] for one in (shown, scene))
    low, high = float(unseen.max()), float(seen.min())
    if low >= high:
        low, high = sorted((float(unseen.mean()), float(seen.mean())))
    on = (low + high) / 2
    threshold = Threshold(on, on - _BAND * (high - low), f"from {len(shown)} examples")
    return dataclasses.replace(made, thresholds=(threshold,))


def put_tags(bank: ClassBank, tags: ClassBank) -> ClassBank:
    """The bank with these tags: in place of those of the same name, others at the end."""
    kept = [name for name in bank.names if name not in tags.names]
    if not kept:
        return tags
    joined = join_banks(bank.select(kept), tags)
    order = [*bank.names, *(name for name in tags.names if name not in bank.names)]
    return joined.select(order)


def _rows(shown: Features, scene: Features, prior: Floats | None) -> dict[str, Floats]:
    """Both rows; `prior` is the local row that the tag has, which finds its patches."""
    global_row = _unit(_mean(shown.whole) - _mean(scene.whole))
    patches = shown.patches - _mean(scene.patches)
    count = max(int(patches.shape[1] * _OBJECT_SHARE), 1)
    likeness = patches @ (global_row if prior is None else prior)
    best = np.argsort(-likeness, axis=1)[:, :count]
    local_row = _unit(np.take_along_axis(patches, best[..., None], axis=1).mean(axis=(0, 1)))
    return {"global_embeddings": global_row, "local_embeddings": local_row}


def _mean(features: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asarray(features.reshape(-1, features.shape[-1]).mean(axis=0, dtype=np.float64))


def _unit(row: npt.NDArray[Any]) -> Floats:
    length = float(np.linalg.norm(row))
    if length < 1e-6:
        raise InputError("the examples look like what the cameras show; send pictures of the tag")
    return np.asarray(row / length, np.float32)
