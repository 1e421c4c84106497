"""The discriminant equals a plain reading of the paper, in float64, on equal features."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from taidpt.runtime.adapting.discriminant import PatchChoice, choose_patches, fit, refine

Array = npt.NDArray[Any]
REFINE_TEMPERATURE = 0.02


def unit(rows: Array) -> Array:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def scene(seed: int, patches: int, dim: int, tags: int) -> tuple[Array, Array]:
    """Patches around directions, and rows that know all but the last tag, which has none."""
    generator = np.random.default_rng(seed)
    centres = unit(generator.normal(size=(tags, dim)))
    shown = generator.integers(0, tags - 1, patches)
    common = unit(generator.normal(size=dim))
    noise = generator.normal(size=(patches, dim)) / math.sqrt(dim)
    features = unit(2 * common + centres[shown] + noise)
    rows = unit(centres + 0.3 * generator.normal(size=(tags, dim)) / math.sqrt(dim))
    rows[-1] = -common
    return features, rows


def softmax(logits: Array) -> Array:
    powers = [math.exp(value - max(logits)) for value in logits]
    return np.array(powers) / sum(powers)


def reference_choice(features: Array, rows: Array, most: int) -> list[tuple[int, int, float]]:
    """(patch, tag, probability) of the patches with the least entropy of each tag."""
    by_tag: dict[int, list[tuple[float, int, float]]] = {}
    for place, feature in enumerate(features):
        shares = softmax([60.0 * float(feature @ row) for row in rows])
        tag = int(np.argmax(shares))
        entropy = -sum(share * math.log(max(share, 1e-10)) for share in shares)
        by_tag.setdefault(tag, []).append((entropy, place, float(shares[tag])))
    return [
        (place, tag, share)
        for tag in sorted(by_tag)
        for _, place, share in sorted(by_tag[tag])[:most]
    ]


def reference_fit(
    features: Array, tags: list[int], shares: list[float], rows: Array
) -> tuple[Array, Array]:
    """Weights and bias of the linear classifier."""
    means = rows.copy()
    for tag in set(tags):
        own = [place for place, other in enumerate(tags) if other == tag]
        total = sum(shares[place] for place in own)
        means[tag] = sum(shares[place] * features[place] for place in own) / total
    n, dim = features.shape
    covariance = np.cov((features - means[tags]).T)
    precision = dim * np.linalg.inv((n - 1) * covariance + np.trace(covariance) * np.eye(dim))
    weights = means @ precision
    bias = [
        math.log(1 / len(rows)) - 0.5 * float(w @ m) for w, m in zip(weights, means, strict=True)
    ]
    return weights, np.array(bias)


@pytest.mark.parametrize(
    ("patches", "dim", "tags", "most"), [(500, 7, 5, 40), (61, 96, 4, 512), (9000, 16, 3, 9)]
)
def test_one_round_equals_the_reference(patches: int, dim: int, tags: int, most: int) -> None:
    """Also with fewer patches than dimensions, and with more than one piece of patches."""
    features, rows = scene(1, patches, dim, tags)
    chosen = choose_patches(features, rows, PatchChoice(most))
    expected = reference_choice(features, rows, most)
    assert chosen.index.tolist() == [place for place, _, _ in expected]
    assert chosen.tags.tolist() == [tag for _, tag, _ in expected]
    np.testing.assert_allclose(chosen.weights, [share for _, _, share in expected], rtol=1e-9)
    assert (chosen.tags != tags - 1).all()
    found = fit(features[chosen.index], chosen.tags, chosen.weights, rows)
    weights, bias = reference_fit(
        features[chosen.index], chosen.tags.tolist(), chosen.weights.tolist(), rows
    )
    np.testing.assert_allclose(found.weights, weights, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.bias, bias, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found.means[-1], rows[-1])


def test_two_rounds_equal_the_reference() -> None:
    features, rows = scene(2, 400, 12, 5)
    chosen = choose_patches(features, rows, PatchChoice(60))
    kept = features[chosen.index]
    first = fit(kept, chosen.tags, chosen.weights, rows)
    found = refine(kept, first, rows, REFINE_TEMPERATURE)
    weights, bias = reference_fit(kept, chosen.tags.tolist(), chosen.weights.tolist(), rows)
    shares = [softmax(REFINE_TEMPERATURE * (weights @ one + bias)) for one in kept]
    tags = [int(np.argmax(share)) for share in shares]
    best = [float(max(share)) for share in shares]
    good = []
    for place, tag in enumerate(tags):
        own = [value for value, other in zip(best, tags, strict=True) if other == tag]
        if len(own) > 1 and best[place] >= np.mean(own) + np.std(own, ddof=1):
            good.append(place)
    assert 0 < len(good) < len(kept) / 2
    expected = reference_fit(
        kept[good], [tags[place] for place in good], [best[place] for place in good], rows
    )
    np.testing.assert_allclose(found.weights, expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.bias, expected[1], rtol=1e-5, atol=1e-5)


def test_patches_below_the_least_probability_are_left_out() -> None:
    features, rows = scene(3, 300, 8, 4)
    every = choose_patches(features, rows, PatchChoice(300))
    some = choose_patches(features, rows, PatchChoice(300, 0.9))
    assert sorted(some.index) == sorted(every.index[every.weights >= 0.9])
    assert len(some.index) < len(every.index)


def test_equal_patches_give_finite_gaussians() -> None:
    rows = np.eye(4)
    found = fit(rows[[0, 0, 1]], np.array([0, 0, 1]), np.ones(3), rows)
    np.testing.assert_array_equal(found.weights, rows)
    alone = fit(rows[:1], np.array([0]), np.ones(1), rows)
    assert np.isfinite(alone.bias).all()
