"""Class rows that fit a scene, from its unlabelled frames, blended with the rows there are.

The blend's weight is chosen without labels, by how much two readings of a frame agree: the global
score, which keeps its rows, and the local score with adapted rows, on frames that these rows have
not seen. Both readings show the same truth with errors of their own, so the better the local rows
are, the more they agree. On the toy world agreement and mAP have their best weight at the same
place.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.adapting.discriminant import PatchChoice, choose_patches, fit
from taidpt.runtime.adapting.similarity import (
    Features,
    global_similarity,
    pool_patches,
)
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.bank.probability_maps import ProbabilityMaps
from taidpt.runtime.bank.thresholds import Thresholds
from taidpt.runtime.bundle.scoring import Scoring
from taidpt.runtime.errors import InputError

__all__ = ["Adaptation", "TagChange", "adapt_bank"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

# Two halves of eight frames are the least for which a correlation says anything. The halves are
# eight stretches of the frames by turns: neighbours in a video are nearly the same frame, so they
# must not be in both.
_LEAST_FRAMES, _STRETCHES = 16, 8
# A confident patch's tag is more probable than all others together, and a tag needs patches from
# three frames, so that one picture does not define it.
_LEAST_PROBABILITY, _LEAST_OF_FRAMES = 0.5, 3
# The paper takes 512 patches a tag from the 5,011 pictures of VOC2007: a tenth of the pictures.
_SHARE_OF_FRAMES, _LEAST_PATCHES, _MOST_PATCHES = 0.1, 16, 512
_WEIGHTS = np.linspace(0, 1, 9)
# On the toy world half a point of mAP goes with 0.02 of agreement; less than half of that is noise.
_LEAST_GAIN = 0.01
_PIECE = 64  # frames whose cosines are in memory at once
_SAME = 1e-6  # of cosines: a tag whose similarity varies less is the same in all frames
SOURCE_MARK = ", before adapting"


@dataclass(frozen=True)
class TagChange:
    """What became of one tag.

    Attributes:
        name: the tag.
        patches, frames: its confident patches, and how many frames they are from.
        before, after: agreement of its local with its global score; NaN if it is not known.
        changed: whether its row is another now.
    """

    name: str
    patches: int
    frames: int
    before: float
    after: float
    changed: bool

    @property
    def found(self) -> bool:
        """Whether its confident patches are enough for a row."""
        return self.frames >= _LEAST_OF_FRAMES

    @property
    def why_kept(self) -> str:
        """Why the tag keeps its row; empty if it does not."""
        if self.changed:
            return ""
        if self.patches == 0:
            return "no confident patch"
        if not self.found:
            return f"confident patches from {self.frames} of the {_LEAST_OF_FRAMES} frames needed"
        return "agreement falls"


@dataclass(frozen=True, eq=False)
class Adaptation:
    """A bank that fits a scene.

    Attributes:
        bank: with thresholds moved along; probability maps of changed tags are dropped.
        weight: share of the scene's rows, 0 to 1.
        before, after: mean agreement over tags with confident patches.
        tags: what became of each.
    """

    bank: ClassBank
    weight: float
    before: float
    after: float
    tags: tuple[TagChange, ...]

    @property
    def helps(self) -> bool:
        """Whether any row changed."""
        return any(tag.changed for tag in self.tags)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of a scene, [C, D], for the tags that are `found`, [C]; patches and frames of each."""

    rows: Floats
    found: npt.NDArray[np.bool_]
    patches: npt.NDArray[np.int64]
    frames: npt.NDArray[np.int64]


def adapt_bank(bank: ClassBank, scene: Features, scoring: Scoring) -> Adaptation:
    """New local rows for a scene; global rows stay.

    Scale and bias of a changed tag are set so that its scores on these frames keep their mean and
    spread, and with them the meaning of its thresholds.

    Args:
        bank: C tags without value embeddings.
        scene: at least 16 frames.
        scoring: of the bundle that scores with the bank.
    Raises:
        InputError: there are too few frames, all are the same, the bank has value embeddings, or
            the local score has no share in the score.
    """
    _check(bank, scene, scoring)
    whole = global_similarity(scene.whole, bank.global_embeddings)
    first = np.arange(len(scene)) * _STRETCHES // len(scene) % 2 == 0
    rows = scene_rows(scene, bank.local_embeddings)
    agreements = []
    for half in (first, ~first):
        learned = scene_rows(scene.part(half), bank.local_embeddings)
        seen = scene.part(~half).patches
        local = _blended(seen, bank.local_embeddings, learned.rows, scoring.temperature)
        agreements.append(np.array([_agreement(one, whole[~half]) for one in local]))
    agreement = np.array(agreements)  # [halves, weights, C]
    if np.isnan(agreement[:, 0]).all():
        raise InputError("these frames are all the same to the model; give frames of other times")
    best, gains = _choose(agreement[:, :, rows.found])
    better = ~(agreement[:, best] < agreement[:, 0]).all(axis=0)  # in one half at least
    changed = rows.found & better & (best > 0)
    before, after = agreement[:, 0].mean(axis=0), agreement[:, best].mean(axis=0)
    tags = zip(
        bank.names,
        *(part.tolist() for part in (rows.patches, rows.frames, before, after, changed)),
        strict=True,
    )
    weight = float(_WEIGHTS[best])
    return Adaptation(
        _exchange(bank, scene, scoring, rows.rows, weight, changed),
        weight,
        float(gains[0]),
        float(gains[best]),
        tuple(TagChange(*tag) for tag in tags),
    )


def scene_rows(scene: Features, rows: Array) -> _Rows:
    """Unit rows by discriminant analysis: from the scene's mean patch to that of a tag.

    A bank scores each tag by itself, so what all patches have in common only hides the tag:
    the row is Σ⁻¹ (mean of the tag − mean of all patches). Tags without enough patches keep theirs.
    """
    frames, per_frame, dim = scene.patches.shape
    features = scene.patches.reshape(-1, dim)
    most = int(np.clip(_SHARE_OF_FRAMES * frames, _LEAST_PATCHES, _MOST_PATCHES))
    chosen = choose_patches(features, rows, PatchChoice(most, _LEAST_PROBABILITY))
    pairs = np.unique(np.stack([chosen.tags, chosen.index // per_frame]), axis=1)
    C = len(rows)
    of_frames = np.bincount(pairs[0], minlength=C)
    patches = np.bincount(chosen.tags, minlength=C)
    found = of_frames >= _LEAST_OF_FRAMES
    new = rows.astype(np.float64)
    if found.any():
        kept = features[chosen.index].astype(np.float64)
        gaussians = fit(kept, chosen.tags, chosen.weights, rows)
        common = features.mean(axis=0, dtype=np.float64)
        directions = (gaussians.means - common) @ gaussians.precision
        lengths = np.linalg.norm(directions, axis=1, keepdims=True)
        found &= lengths[:, 0] > 0  # the whole scene may be one tag
        new[found] = directions[found] / lengths[found]
    return _Rows(new, found, patches, of_frames)


def _check(bank: ClassBank, scene: Features, scoring: Scoring) -> None:
    if len(scene) < _LEAST_FRAMES:
        raise InputError(
            f"{len(scene)} frame{'s' * (len(scene) != 1)}: adapting needs at least "
            f"{_LEAST_FRAMES}, of different moments; give a video or more pictures"
        )
    if bank.value_embeddings is not None:
        raise InputError("a bank with value embeddings (DualCoOp) cannot be adapted to a scene")
    if scoring.merge_weight == 0:
        raise InputError("the bundle scores whole frames alone (merge weight 0), not patches")


def _blend(old: Array, new: Array, weight: float) -> Floats:
    mixed = (1 - weight) * old.astype(np.float64) + weight * new
    return np.asarray(mixed / np.linalg.norm(mixed, axis=1, keepdims=True))


def _blended(patches: Array, old: Array, new: Array, temperature: float) -> list[Array]:
    """Local similarities [N, C] for each weight; cosines are computed for both ends alone."""
    ends = np.stack([old, new]).astype(np.float32)
    lengths = [np.linalg.norm((1 - w) * ends[0] + w * ends[1], axis=1) for w in _WEIGHTS]
    parts: list[list[Array]] = [[] for _ in _WEIGHTS]
    for start in range(0, len(patches), _PIECE):
        piece = patches[start : start + _PIECE].astype(np.float32)
        cosines = [piece @ rows.T for rows in ends]
        for weight, length, part in zip(_WEIGHTS, lengths, parts, strict=True):
            mixed = ((1 - weight) * cosines[0] + weight * cosines[1]) / length
            part.append(pool_patches(mixed, temperature))
    return [np.concatenate(part) for part in parts]


def _agreement(first: Array, second: Array) -> Floats:
    """Correlation of two scores over frames, [N, C] each → [C]; NaN where one does not vary."""
    sides = [side - side.mean(axis=0, dtype=np.float64) for side in (first, second)]
    spread = [np.sqrt((side**2).mean(axis=0)) for side in sides]
    varies = np.minimum(*spread) > _SAME
    product = np.where(varies, spread[0] * spread[1], 1.0)
    return np.where(varies, (sides[0] * sides[1]).mean(axis=0) / product, np.nan)


def _choose(agreement: Floats) -> tuple[int, Floats]:
    """The place of the best weight, 0 unless it gains in both halves; mean agreement of each.

    Args:
        agreement: [2, weights, tags].
    """
    known = ~np.isnan(agreement).any(axis=(0, 1))
    if not known.any():
        return 0, np.full(len(_WEIGHTS), np.nan)
    halves = agreement[:, :, known].mean(axis=2)
    means = halves.mean(axis=0)
    best = int(means.argmax())
    gained = means[best] - means[0] >= _LEAST_GAIN and (halves[:, best] > halves[:, 0]).all()
    return best if gained else 0, means


def _exchange(
    bank: ClassBank,
    scene: Features,
    scoring: Scoring,
    new: Floats,
    weight: float,
    changed: npt.NDArray[np.bool_],
) -> ClassBank:
    """The bank with the blended rows of the changed tags."""
    if not changed.any():
        return bank
    local = bank.local_embeddings.copy()
    local[changed] = _blend(local[changed], new[changed], weight)
    whole = global_similarity(scene.whole, bank.global_embeddings[changed])
    before, after = (
        (1 - scoring.merge_weight) * whole
        + scoring.merge_weight * _pooled(scene.patches, rows[changed], scoring.temperature)
        for rows in (bank.local_embeddings, local)
    )
    factor = before.std(axis=0) / np.maximum(after.std(axis=0), _SAME)
    scale, bias = bank.scale.copy(), bank.bias.copy()
    scale[changed] = bank.scale[changed] * factor
    bias[changed] += bank.scale[changed] * (before.mean(axis=0) - factor * after.mean(axis=0))
    maps = [
        None if other else one
        for one, other in zip(ProbabilityMaps.of(bank.probabilities), changed, strict=True)
    ]
    return dataclasses.replace(
        bank,
        local_embeddings=local,
        scale=scale,
        bias=bias,
        thresholds=_marked(Thresholds.of(bank.thresholds), changed),
        probabilities=maps,
    )


def _pooled(patches: Array, rows: Array, temperature: float) -> Array:
    pieces = range(0, len(patches), _PIECE)
    return np.concatenate(
        [
            pool_patches(patches[s : s + _PIECE].astype(np.float32) @ rows.T, temperature)
            for s in pieces
        ]
    )


def _marked(thresholds: Thresholds, changed: npt.NDArray[np.bool_]) -> Thresholds:
    """The thresholds; the source of changed tags says that they are from before."""
    if not len(thresholds):
        return thresholds
    sources = tuple(
        f"{source.removesuffix(SOURCE_MARK)}{SOURCE_MARK}" if other else source
        for source, other in zip(thresholds.sources, changed, strict=True)
    )
    return Thresholds(thresholds.on, thresholds.off, sources)
