"""A new tag from example pictures, where no text tower is: what they have and the cameras lack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.bank.class_bank import ClassBank, Threshold, join_banks
from taidpt.runtime.errors import InputError
from taidpt.runtime.tagger.active_bank import check_swappable
from taidpt.runtime.tagger.tagger import Tagger

__all__ = ["examples_to_bank"]

# Share of a picture's patches that show the object: those most like the row of the whole picture.
_OBJECT_SHARE = 0.1
# The tag switches off below the threshold by this share of the gap between examples and cameras.
_BAND = 0.2

Floats = npt.NDArray[np.float32]


def examples_to_bank(
    name: str,
    examples: Sequence[npt.NDArray[Any]],
    background: Sequence[npt.NDArray[Any]],
    tagger: Tagger,
) -> ClassBank:
    """The bank of one tag.

    Pictures of one model have a large feature in common, so the rows are the difference of the
    examples' mean feature from that of the cameras. The threshold lies in the middle between the
    lowest score of an example and the highest of a camera's frame, or between their means where
    these overlap.

    Args:
        name: the tag's name.
        examples: E pictures that show it.
        background: B frames of the cameras that do not show it.
        tagger: its bundle takes a bank; its own bank stays as it is.
    Raises:
        InputError: the bundle's bank is a constant, or its graph gives no global features.
    """
    check_swappable(tagger.bundle)
    shown, others = tagger.tag_batch(list(examples)), tagger.tag_batch(list(background))
    if "global_features" not in shown.outputs:
        raise InputError(f"{tagger.bundle.path}: its graph gives no global features; export again")
    common = others.outputs["global_features"].mean(axis=0)
    global_row = _unit(shown.outputs["global_features"].mean(axis=0) - common)
    patches = shown.outputs["patch_features"] - others.outputs["patch_features"].mean(axis=(0, 1))
    count = max(int(patches.shape[1] * _OBJECT_SHARE), 1)
    best = np.argsort(-(patches @ global_row), axis=1)[:, :count]
    local_row = _unit(np.take_along_axis(patches, best[..., None], axis=1).mean(axis=(0, 1)))
    bank = tagger.class_bank
    scale = np.full(1, np.median(bank.scale), np.float32)
    rows = {"global_embeddings": global_row[None], "local_embeddings": local_row[None]}
    made = ClassBank.from_rows(
        (name,),
        **rows,
        scale=scale,
        thresholds=(Threshold(0.0, 0.0, "none yet"),),
        metadata=bank.metadata,
    )
    trial = tagger.with_threshold(0.0)
    trial.use_bank(join_banks(bank, made))
    seen = trial.tag_batch(list(examples)).scores[:, -1]
    unseen = trial.tag_batch(list(background)).scores[:, -1]
    low, high = float(unseen.max()), float(seen.min())
    if low >= high:
        low, high = sorted((float(unseen.mean()), float(seen.mean())))
    on = (low + high) / 2
    threshold = Threshold(on, on - _BAND * (high - low), f"from {len(examples)} examples")
    return ClassBank.from_rows(
        (name,), **rows, scale=scale, thresholds=(threshold,), metadata=bank.metadata
    )


def _unit(row: Floats) -> Floats:
    length = float(np.linalg.norm(row))
    if length < 1e-6:
        raise InputError("the examples look like what the cameras show; send pictures of the tag")
    return np.asarray(row / length, np.float32)
