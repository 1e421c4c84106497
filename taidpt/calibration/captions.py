"""Thresholds from captions: scored through the text tower of a bundle's model."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from taidpt.calibration.targets import Target
from taidpt.runtime.errors import InputError
from taidpt.runtime.optional import optional_packages

if TYPE_CHECKING:
    from taidpt.features.caption_features import FeatureBatch
    from taidpt.text_thresholds import TextTag

__all__ = ["label_captions", "tags_from_captions"]

_BATCH = 256
_TEXT_TEMPERATURE = 50.0  # of the local head on captions, the paper's


def tags_from_captions(target: Target, path: str) -> tuple[TextTag, ...]:
    """Thresholds and probability maps from captions alone, on scores of pictures.

    Args:
        target: its model's text tower is loaded by the name in the bundle's manifest.
        path: plain text, JSONL or COCO's JSON, maybe gzipped.
    Raises:
        InputError: the file cannot be read, no caption names a tag, or scores are not finite.
        MissingDependencyError: torch or open_clip is not installed.
    """
    with optional_packages("--texts", "export"):
        from taidpt.clip.model import load_clip
    model = target.bundle.manifest.model
    clip = load_clip(model.name, model.pretrained)
    from taidpt.features.caption_features import encode_captions
    from taidpt.features.made_up_pictures import made_up_features
    from taidpt.text_thresholds import tags_from_texts

    texts, targets = label_captions(target, path)
    features = encode_captions(clip, texts)
    batches = np.array_split(np.arange(len(texts)), -(-len(texts) // _BATCH))
    parts = [_score(features.batch(rows), target, _TEXT_TEMPERATURE) for rows in batches]
    pictures = _score(made_up_features(clip), target, target.bundle.manifest.scoring.temperature)
    return tags_from_texts(np.concatenate(parts), targets > 0, pictures)


def label_captions(target: Target, path: str) -> tuple[list[str], npt.NDArray[np.int8]]:
    """Captions, and 1 where one names a tag, else −1, int8 [M, C].

    Raises:
        InputError: the file cannot be read, or no caption names a tag.
    """
    from taidpt.texts.captions import read_texts
    from taidpt.texts.labels import TextLabeler
    from taidpt.texts.tags import Tag, TagSet

    labeler = TextLabeler(TagSet(tuple(map(Tag, target.names, target.synonyms)), path))
    texts = list(read_texts(path))
    targets = np.full((len(texts), len(target.names)), -1, np.int8)
    for row, text in zip(targets, texts, strict=True):
        row[list(labeler.labels(text))] = 1
    if not (targets > 0).any():
        raise InputError(f"{path}: none of its {len(texts)} captions names a tag of {target.path}")
    return texts, targets


def _score(features: FeatureBatch, target: Target, temperature: float) -> npt.NDArray[np.float64]:
    """Scores as the bundle's graph computes them, [N, C]."""
    from taidpt.scores import bank_outputs

    scoring = dataclasses.replace(target.bundle.manifest.scoring, temperature=temperature)
    of = features.pooled, features.tokens, features.mask
    return bank_outputs(target.bank, scoring, *of)["scores"].numpy().astype(np.float64)
