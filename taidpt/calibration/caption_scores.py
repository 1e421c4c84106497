"""Scores of held-out captions under a bundle's bank, through the text tower of its model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from taidpt.calibration.score_matrix import ScoreMatrix
from taidpt.runtime.bundle import Bundle
from taidpt.runtime.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    import torch

    from taidpt.caption_features import CaptionFeatures
    from taidpt.runtime.bank import ClassBank

__all__ = ["score_captions"]

_BATCH = 256
_TEXT_TEMPERATURE = 50.0  # of the local head on captions, the paper's


def score_captions(bundle: Bundle, path: str) -> ScoreMatrix:
    """Score a file of captions; a caption has the tags that it names.

    Args:
        bundle: its model's text tower is loaded by the name in the manifest.
        path: plain text, JSONL or COCO's JSON, maybe gzipped.
    Raises:
        InputError: the file cannot be read, or no caption names a tag.
        MissingDependencyError: torch or open_clip is not installed.
    """
    try:
        from taidpt.caption_features import encode_captions
        from taidpt.clip import load_clip
    except ImportError as error:
        raise MissingDependencyError(
            f"--texts with captions needs {error.name} for the text tower: pip install "
            "'taidpt[export]', or give an .npz of their scores"
        ) from None
    texts, targets = _labelled(bundle, path)
    model = bundle.manifest.model
    features = encode_captions(load_clip(model.name, model.pretrained), texts)
    global_part, local_part = _heads(features, bundle.bank)
    return ScoreMatrix(targets, global_part, local_part, bundle.names)


def _labelled(bundle: Bundle, path: str) -> tuple[list[str], npt.NDArray[np.int8]]:
    from taidpt.captions import read_texts
    from taidpt.labels import TextLabeler
    from taidpt.tags import Tag, TagSet

    tags = TagSet(tuple(Tag(tag.name, tag.synonyms) for tag in bundle.manifest.tags), path)
    labeler = TextLabeler(tags)
    texts = list(read_texts(path))
    targets = np.full((len(texts), len(bundle.names)), -1, np.int8)
    for row, text in zip(targets, texts, strict=True):
        row[list(labeler.labels(text))] = 1
    if not (targets > 0).any():
        raise InputError(f"{path}: none of its {len(texts)} captions names a tag of {bundle.path}")
    return texts, targets


def _heads(
    features: CaptionFeatures, bank: ClassBank
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    import torch

    from taidpt.scores import SCORE_SCALE, global_scores, local_scores

    rows = [_tensor(bank.global_embeddings), _tensor(bank.local_embeddings)]
    values = None if bank.value_embeddings is None else _tensor(bank.value_embeddings)
    parts: tuple[list[npt.NDArray[np.float64]], ...] = ([], [])
    for low in range(0, len(features), _BATCH):
        batch = features.batch(np.arange(low, min(low + _BATCH, len(features))))
        with torch.no_grad():
            found: Sequence[torch.Tensor] = (
                global_scores(batch.pooled, rows[0]),
                local_scores(batch.tokens, rows[1], _TEXT_TEMPERATURE, batch.mask, values),
            )
        for part, head in zip(parts, found, strict=True):
            part.append(head.numpy().astype(np.float64) / SCORE_SCALE * bank.scale + bank.bias)
    return np.concatenate(parts[0]), np.concatenate(parts[1])


def _tensor(rows: npt.NDArray[np.float32]) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.array(rows))
