"""Scores of held-out captions under a bundle's bank, through the text tower of its model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import InputError
from taidpt.runtime.optional import optional_packages
from taidpt.score_file import ScoreFile

if TYPE_CHECKING:
    from taidpt.calibration.from_texts.thresholds import TextTag
    from taidpt.clip.model import ClipModel
    from taidpt.features.caption_features import FeatureBatch
    from taidpt.runtime.bank.class_bank import ClassBank

__all__ = ["label_captions", "score_captions", "tags_from_captions"]

_BATCH = 256
_TEXT_TEMPERATURE = 50.0  # of the local head on captions, the paper's


class TagRows(Protocol):
    """Tags and their rows, with the bundle that scores them; `targets.Target` is one."""

    @property
    def bundle(self) -> Bundle: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def synonyms(self) -> tuple[tuple[str, ...], ...]: ...
    @property
    def bank(self) -> ClassBank: ...
    @property
    def path(self) -> Path: ...


def score_captions(target: TagRows, path: str) -> ScoreFile:
    """Score a file of captions; a caption has the tags that it names.

    Args:
        target: its model's text tower is loaded by the name in the bundle's manifest.
        path: plain text, JSONL or COCO's JSON, maybe gzipped.
    Raises:
        InputError: the file cannot be read, or no caption names a tag.
        MissingDependencyError: torch or open_clip is not installed.
    """
    return _score_captions(_clip(target.bundle), target, path)


def tags_from_captions(target: TagRows, path: str) -> tuple[TextTag, ...]:
    """Thresholds and probability maps from captions alone, on scores of pictures.

    Args and Raises: as `score_captions`; also InputError where scores are not finite.
    """
    _refuse_scores(path)
    clip = _clip(target.bundle)
    from taidpt.calibration.from_texts.modality_gap import made_up_features
    from taidpt.calibration.from_texts.thresholds import tags_from_texts

    texts = _score_captions(clip, target, path)
    scoring = target.bundle.manifest.scoring
    made_up = _heads(made_up_features(clip), target.bank, scoring.temperature)
    merged, pictures = (
        matrix.merged(scoring.merge_weight, scoring.transform)
        for matrix in (texts, ScoreFile(None, *made_up, target.names))
    )
    assert texts.targets is not None
    return tags_from_texts(merged, texts.targets > 0, pictures)


def _refuse_scores(path: str) -> None:
    if path.endswith(".npz"):
        raise InputError(
            f"--texts {path}: scores of captions need --frames SOURCE beside them; without, give "
            "the captions themselves"
        )


def label_captions(target: TagRows, path: str) -> tuple[list[str], npt.NDArray[np.int8]]:
    """Captions, and 1 where one names a tag, else −1, int8 [M, C].

    Raises:
        InputError: the file cannot be read, or no caption names a tag.
    """
    from taidpt.texts.captions import read_texts
    from taidpt.texts.labels import TextLabeler
    from taidpt.texts.tags import Tag, TagSet

    tags = TagSet(tuple(map(Tag, target.names, target.synonyms)), path)
    labeler = TextLabeler(tags)
    texts = list(read_texts(path))
    targets = np.full((len(texts), len(target.names)), -1, np.int8)
    for row, text in zip(targets, texts, strict=True):
        row[list(labeler.labels(text))] = 1
    if not (targets > 0).any():
        raise InputError(f"{path}: none of its {len(texts)} captions names a tag of {target.path}")
    return texts, targets


def _clip(bundle: Bundle) -> ClipModel:
    with optional_packages("--texts with captions", "export", "give an .npz of their scores"):
        from taidpt.clip.model import load_clip
    return load_clip(bundle.manifest.model.name, bundle.manifest.model.pretrained)


def _score_captions(clip: ClipModel, target: TagRows, path: str) -> ScoreFile:
    from taidpt.features.caption_features import encode_captions

    texts, targets = label_captions(target, path)
    features = encode_captions(clip, texts)
    parts = [
        _heads(features.batch(rows), target.bank, _TEXT_TEMPERATURE)
        for rows in np.array_split(np.arange(len(texts)), -(-len(texts) // _BATCH))
    ]
    whole, local = (np.concatenate(kind) for kind in zip(*parts, strict=True))
    return ScoreFile(targets, whole, local, target.names)


def _heads(
    features: FeatureBatch, bank: ClassBank, temperature: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Global and local scores, [N, C] each, with the bank's scale and bias."""
    import torch

    from taidpt.scores import SCORE_SCALE, global_scores, local_scores

    rows = [torch.from_numpy(np.array(r)) for r in (bank.global_embeddings, bank.local_embeddings)]
    values = None
    if bank.value_embeddings is not None:
        values = torch.from_numpy(np.array(bank.value_embeddings))
    with torch.no_grad():
        whole = global_scores(features.pooled, rows[0])
        local = local_scores(features.tokens, rows[1], temperature, features.mask, values)
    scale = bank.scale.astype(np.float64) / SCORE_SCALE
    return whole.numpy() * scale + bank.bias, local.numpy() * scale + bank.bias
