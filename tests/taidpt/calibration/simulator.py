"""Score matrices of many shapes, with the truth beside them, to judge threshold methods on.

The method was developed on all of these families: only seeds that nobody has drawn are unseen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import InputError
from taidpt.score_file import ScoreFile
from tests.taidpt.calibration.photo_families import PHOTO_FAMILIES

__all__ = ["FAMILIES", "Size", "simulate"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Random = np.random.Generator

_NOISE = 0.1  # spread of a tag's background, in units of a score


@dataclass(frozen=True)
class Size:
    """How many frames and tags a matrix has, and which share of the tags never occurs."""

    frames: int = 2000
    tags: int = 40
    absent: float = 0.0


@dataclass(frozen=True)
class _World:
    """What the two heads are made of: truth [N, C], each tag's base [C], effects and noise."""

    present: Bools
    base: Floats
    effect: Floats
    noise: Floats


def simulate(family: str, seed: int, size: Size | None = None) -> ScoreFile:
    """Draw one score matrix.

    Args:
        family: a name in `FAMILIES`.
        seed: the same seed draws the same matrix.
    Raises:
        InputError: there is no such family.
    """
    if family not in FAMILIES:
        raise InputError(f"no simulated family {family!r}; there are {', '.join(FAMILIES)}")
    size = size or Size()
    random = np.random.default_rng([seed, *family.encode()])
    if family in PHOTO_FAMILIES:
        return PHOTO_FAMILIES[family].draw(random, size.frames, size.tags, size.absent)
    return _two_heads(_WORLDS[family](random, size), random)


def _two_heads(world: _World, random: Random) -> ScoreFile:
    """Split the merged score into two heads whose mean it is, as a global and a local head are."""
    merged = world.base + _NOISE * (world.noise + world.present * world.effect)
    split = _NOISE * 0.7 * random.standard_normal(merged.shape)
    targets = np.where(world.present, 1, -1).astype(np.int8)
    names = tuple(f"tag {index}" for index in range(merged.shape[1]))
    return ScoreFile(targets, merged + split, merged - split, names)


def _prevalence(random: Random, size: Size, low: float, high: float) -> Floats:
    prevalence = np.exp(random.uniform(np.log(low), np.log(high), size.tags))
    prevalence[size.tags - int(size.absent * size.tags) :] = 0.0
    return prevalence


def _draw(random: Random, size: Size, prevalence: Floats) -> Bools:
    """Independent tags; each tag that may occur occurs at least twice."""
    present = random.random((size.frames, size.tags)) < prevalence
    for tag in np.flatnonzero((present.sum(0) < 2) & (prevalence > 0)):
        present[random.choice(size.frames, 2, replace=False), tag] = True
    return present


def _plain(
    random: Random,
    size: Size,
    prevalence: Floats | None = None,
    separation: float = 3.2,
    spread: float = 1.0,
) -> _World:
    """Every tag has the same Gaussian background and about the same separation."""
    if prevalence is None:
        prevalence = _prevalence(random, size, 0.01, 0.3)
    present = _draw(random, size, prevalence)
    centre = separation + 0.4 * random.standard_normal(size.tags)
    effect = centre + spread * random.standard_normal(present.shape)
    noise = random.standard_normal(present.shape)
    return _World(present, np.full(size.tags, 0.8), effect, noise)


def _shifted(random: Random, size: Size) -> _World:
    world = _plain(random, size)
    base = 0.8 + 0.2 * random.standard_normal(size.tags)
    return _World(world.present, base, world.effect, world.noise)


def _skewed(random: Random, size: Size) -> _World:
    world = _plain(random, size, separation=4.0)
    shape = random.uniform(2.0, 8.0, size.tags)
    noise = (random.gamma(shape, size=world.noise.shape) - shape) / np.sqrt(shape)
    base = 0.8 + 0.1 * random.standard_normal(size.tags)
    return _World(world.present, base, world.effect, noise)


def _heteroscedastic(random: Random, size: Size) -> _World:
    world = _plain(random, size)
    scale = np.exp(random.uniform(np.log(0.5), np.log(1.8), size.tags))
    base = 0.8 + 0.05 * random.standard_normal(size.tags)
    return _World(world.present, base, world.effect * scale, world.noise * scale)


def _heavy_tailed(random: Random, size: Size) -> _World:
    world = _plain(random, size, separation=4.5)
    noise = random.standard_t(4, world.noise.shape)
    base = 0.8 + 0.1 * random.standard_normal(size.tags)
    return _World(world.present, base, world.effect, noise)


def _rare(random: Random, size: Size) -> _World:
    return _plain(random, size, _prevalence(random, size, 0.001, 0.01), separation=4.5)


def _common(random: Random, size: Size) -> _World:
    prevalence = _prevalence(random, size, 0.01, 0.2)
    often = size.tags // 3
    prevalence[:often] = random.uniform(0.5, 0.9, often)
    world = _plain(random, size, prevalence)
    base = 0.8 + 0.07 * random.standard_normal(size.tags)
    return _World(world.present, base, world.effect, world.noise)


def _correlated(random: Random, size: Size) -> _World:
    """Scenes: tags occur together, and the noise of related tags goes together."""
    loadings = random.standard_normal((4, size.tags))
    scenes = random.standard_normal((size.frames, 4))
    wish = scenes @ loadings / 2 + random.standard_normal((size.frames, size.tags))
    prevalence = _prevalence(random, size, 0.01, 0.3)
    cuts = np.array([np.quantile(wish[:, c], 1 - p) for c, p in enumerate(prevalence)])
    world = _plain(random, size)
    noise = 0.8 * world.noise + 0.3 * scenes @ random.standard_normal((4, size.tags))
    base = 0.8 + 0.1 * random.standard_normal(size.tags)
    return _World(wish > cuts, base, world.effect, noise)


def _offsets(random: Random, size: Size) -> _World:
    """Every picture lifts or lowers all of its scores."""
    world = _plain(random, size)
    noise = world.noise + 1.2 * random.standard_normal((size.frames, 1))
    base = 0.8 + 0.05 * random.standard_normal(size.tags)
    return _World(world.present, base, world.effect, noise)


def _absent(random: Random, size: Size) -> _World:
    """Four tags of ten never occur."""
    prevalence = _prevalence(random, size, 0.005, 0.3)
    prevalence[random.permutation(size.tags)[: int(0.4 * size.tags)]] = 0.0
    world = _plain(random, size, prevalence, separation=4.0)
    base = 0.8 + 0.1 * random.standard_normal(size.tags)
    return _World(world.present, base, world.effect, world.noise)


def _weak(random: Random, size: Size) -> _World:
    """A tagger that is hardly good enough."""
    world = _plain(random, size, _prevalence(random, size, 0.03, 0.4), separation=1.8)
    base = 0.8 + 0.05 * random.standard_normal(size.tags)
    return _World(world.present, base, world.effect, world.noise)


def _graded(random: Random, size: Size) -> _World:
    """Big things score far more than small ones, so positives are wide and skewed."""
    world = _plain(random, size, _prevalence(random, size, 0.005, 0.5))
    area = random.beta(1.2, 2.0, world.present.shape)
    lift = 1.5 + (5.0 + random.standard_normal(size.tags)) * area
    base = 0.8 + 0.1 * random.standard_normal(size.tags)
    return _World(world.present, base, lift, world.noise)


def _confused(random: Random, size: Size) -> _World:
    """Every third tag is also lifted, by less, where its neighbour is seen."""
    world = _plain(random, size, separation=4.0)
    victims = np.arange(0, size.tags - 1, 3)
    noise = world.noise.copy()
    noise[:, victims] += 1.5 * world.present[:, victims + 1]
    base = 0.8 + 0.1 * random.standard_normal(size.tags)
    return _World(world.present, base, world.effect, noise)


def _embedded(random: Random, size: Size) -> _World:
    """Cosines of made-up pictures with made-up class vectors, nothing drawn as a score.

    A picture is a scene, its things by their sizes, and noise; class vectors share a common
    direction, as a text tower's do.
    """
    dim = 64
    common = random.standard_normal(dim)
    classes = random.standard_normal((size.tags, dim)) + 0.8 * common
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    world = _plain(random, size, _prevalence(random, size, 0.005, 0.6))
    sizes = world.present * random.gamma(4.0, 0.25, world.present.shape)
    scenes = random.standard_normal((6, dim))
    pictures = sizes @ classes + 0.25 * random.dirichlet(np.ones(6), size.frames) @ scenes
    pictures = pictures + 0.3 * common / np.sqrt(dim)
    pictures += 0.12 * random.standard_normal(pictures.shape)
    cosines = pictures @ classes.T / np.linalg.norm(pictures, axis=1, keepdims=True)
    nothing = np.zeros_like(cosines)
    return _World(world.present, np.zeros(size.tags), nothing, 4 * cosines / _NOISE)


def _crowded(random: Random, size: Size) -> _World:
    """A thing lifts every tag that is like it, most of all those of its own kind.

    A tag's background is the strongest look-alike in the picture, so it has heaps of its own.
    """
    kind = random.integers(0, max(size.tags // 6, 1), size.tags)
    likeness = random.uniform(0.0, 0.35, (size.tags, size.tags))
    likeness = likeness + random.uniform(0.1, 0.4, likeness.shape) * (kind[:, None] == kind)
    np.fill_diagonal(likeness, 0.0)
    world = _plain(random, size, _prevalence(random, size, 0.01, 0.15), separation=5.0)
    strength = world.present * random.gamma(9.0, 1 / 9, world.present.shape)
    looks = np.stack([(strength * row).max(axis=1) for row in likeness], axis=1)
    base = 0.5 + 0.1 * random.standard_normal(size.tags)
    lift = np.maximum(world.effect * strength - 5.0 * looks, 0.0)
    return _World(world.present, base, lift, world.noise + 5.0 * looks)


def _broad(random: Random, size: Size) -> _World:
    """Positives as wide as the background and half inside it, for seldom and for common tags."""
    prevalence = _prevalence(random, size, 0.02, 0.6)
    world = _plain(random, size, prevalence, separation=2.7, spread=1.5)
    base = 0.8 + 0.07 * random.standard_normal(size.tags)
    return _World(world.present, base, world.effect, world.noise)


def _one_scale(random: Random, size: Size) -> _World:
    """A head trained on labels: backgrounds differ by tag, frames with a tag score alike."""
    world = _plain(random, size)
    level = 0.8 * random.standard_normal(size.tags)
    effect = 5.0 - level + 1.4 * random.standard_normal(world.present.shape)
    return _World(world.present, 0.8 + _NOISE * level, effect, world.noise)


def _mixed(random: Random, size: Size) -> _World:
    """Shifted, stretched, skewed, offset, some tags common and some never seen."""
    prevalence = _prevalence(random, size, 0.003, 0.8)
    prevalence[: size.tags // 6] = 0.0
    world = _plain(random, size, prevalence, separation=4.0)
    shape = random.uniform(3.0, 20.0, size.tags)
    noise = (random.gamma(shape, size=world.noise.shape) - shape) / np.sqrt(shape)
    noise = noise + 0.5 * random.standard_normal((size.frames, 1))
    scale = np.exp(0.3 * random.standard_normal(size.tags))
    base = 0.8 + 0.15 * random.standard_normal(size.tags)
    return _World(world.present, base, world.effect * scale, noise * scale)


_Family = Callable[[Random, Size], _World]

_WORLDS: dict[str, _Family] = {
    "plain": _plain,
    "shifted": _shifted,
    "skewed": _skewed,
    "heteroscedastic": _heteroscedastic,
    "heavy-tailed": _heavy_tailed,
    "rare": _rare,
    "common": _common,
    "correlated": _correlated,
    "offsets": _offsets,
    "absent": _absent,
    "weak": _weak,
    "embedded": _embedded,
    "crowded": _crowded,
    "graded": _graded,
    "confused": _confused,
    "broad": _broad,
    "one scale": _one_scale,
    "mixed": _mixed,
}
FAMILIES = (*_WORLDS, *PHOTO_FAMILIES)
