"""Random backgrounds of the toy world: flat, noisy and textured.

There are two disjoint sets of families. The model trains on `TRAIN_FAMILIES`; the held-out pictures
and the demo video use `HELDOUT_FAMILIES`.

The number ranges of each family were chosen by eye, so that emoji remain visible and repeated draws
differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = [
    "COLOURS",
    "HELDOUT_FAMILIES",
    "TRAIN_FAMILIES",
    "Background",
    "draw_background",
]

FloatImage = NDArray[np.float32]

# "orange" is missing because a caption would then name the fruit.
COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (244, 244, 242),
    "black": (24, 24, 26),
    "grey": (128, 130, 132),
    "red": (196, 52, 52),
    "green": (70, 150, 74),
    "blue": (58, 104, 190),
    "yellow": (236, 206, 78),
    "purple": (124, 78, 164),
    "pink": (238, 164, 190),
    "brown": (128, 92, 62),
    "beige": (222, 204, 170),
    "turquoise": (80, 184, 184),
}


@dataclass(frozen=True)
class Background:
    """The background of a scene.

    Attributes:
        family: the kind of pattern.
        colour: the name of the main colour.
    """

    family: str
    colour: str


def _tint(rng: np.random.Generator, name: str) -> FloatImage:
    base = np.asarray(COLOURS[name], np.float32)
    return np.clip(base + rng.normal(0, 14, 3), 0, 255).astype(np.float32)


def _second(rng: np.random.Generator) -> FloatImage:
    return _tint(rng, list(COLOURS)[rng.integers(len(COLOURS))])


def _mix(mask: FloatImage, first: FloatImage, second: FloatImage) -> FloatImage:
    mask = mask[..., None]
    return (first * (1 - mask) + second * mask).astype(np.float32)


def _axes(size: tuple[int, int]) -> tuple[FloatImage, FloatImage]:
    height, width = size
    scale = 1.0 / min(height, width)
    ys = (np.arange(height, dtype=np.float32) * scale)[:, None]
    xs = (np.arange(width, dtype=np.float32) * scale)[None, :]
    return ys, xs


def _along(rng: np.random.Generator, size: tuple[int, int]) -> FloatImage:
    """Distance along a random direction, in units of the short side, [H, W]."""
    ys, xs = _axes(size)
    angle = rng.uniform(0, 2 * np.pi)
    return np.asarray(xs * np.cos(angle) + ys * np.sin(angle), np.float32)


def _from_point(rng: np.random.Generator, size: tuple[int, int]) -> FloatImage:
    """Distance from a random point, in units of the short side, [H, W]."""
    ys, xs = _axes(size)
    cy, cx = rng.uniform(-0.1, 1.1, 2)
    return np.asarray(np.sqrt((xs - cx) ** 2 + (ys - cy) ** 2), np.float32)


def _unit(values: FloatImage) -> FloatImage:
    low, high = float(values.min()), float(values.max())
    return np.asarray((values - low) / max(high - low, 1e-6), np.float32)


def _cloud(rng: np.random.Generator, size: tuple[int, int], cells: int) -> FloatImage:
    """Smooth noise in [0, 1] with about `cells` bumps a side, [H, W]."""
    height, width = size
    grid = rng.random((cells, cells)).astype(np.float32)
    image = Image.fromarray(grid, mode="F").resize((width, height), Image.Resampling.BICUBIC)
    return _unit(np.asarray(image, np.float32))


def _wave(values: FloatImage, period: float, softness: float) -> FloatImage:
    wave = np.sin(values * (2 * np.pi / period)) / softness * 0.5 + 0.5
    return np.asarray(np.clip(wave, 0, 1), np.float32)


def _flat(rng: np.random.Generator, size: tuple[int, int], first: FloatImage) -> FloatImage:
    return np.broadcast_to(first, (*size, 3)).astype(np.float32)


def _gradient(rng: np.random.Generator, size: tuple[int, int], first: FloatImage) -> FloatImage:
    return _mix(_unit(_along(rng, size)), first, _second(rng))


def _glow(rng: np.random.Generator, size: tuple[int, int], first: FloatImage) -> FloatImage:
    return _mix(_unit(_from_point(rng, size)), first, _second(rng))


def _grain(rng: np.random.Generator, size: tuple[int, int], first: FloatImage) -> FloatImage:
    channels = 3 if rng.random() < 0.5 else 1
    noise = rng.standard_normal((*size, channels), dtype=np.float32)
    return np.asarray(first + noise * np.float32(rng.uniform(15, 60)), np.float32)


def _clouds(rng: np.random.Generator, size: tuple[int, int], first: FloatImage) -> FloatImage:
    return _mix(_cloud(rng, size, int(rng.integers(3, 24))), first, _second(rng))


def _stripes(rng: np.random.Generator, size: tuple[int, int], first: FloatImage) -> FloatImage:
    mask = _wave(_along(rng, size), rng.uniform(0.06, 0.4), rng.uniform(0.1, 1.0))
    return _mix(mask * rng.uniform(0.3, 1.0), first, _second(rng))


def _checks(rng: np.random.Generator, size: tuple[int, int], first: FloatImage) -> FloatImage:
    ys, xs = _axes(size)
    cell = rng.uniform(0.06, 0.3)
    mask = ((np.floor(ys / cell) + np.floor(xs / cell)) % 2).astype(np.float32)
    return _mix(mask * np.float32(rng.uniform(0.3, 1.0)), first, _second(rng))


def _dots(rng: np.random.Generator, size: tuple[int, int], first: FloatImage) -> FloatImage:
    ys, xs = _axes(size)
    cell = rng.uniform(0.08, 0.3)
    radius = rng.uniform(0.15, 0.45)
    away = np.hypot((ys / cell) % 1 - 0.5, (xs / cell) % 1 - 0.5).astype(np.float32)
    return _mix(np.clip((radius - away) * 12, 0, 1).astype(np.float32), first, _second(rng))


def _patches(rng: np.random.Generator, size: tuple[int, int], first: FloatImage) -> FloatImage:
    image = np.broadcast_to(first, (*size, 3)).astype(np.float32)
    for _ in range(int(rng.integers(3, 14))):
        top, left = rng.integers(0, size[0]), rng.integers(0, size[1])
        height, width = rng.integers(size[0] // 20, size[0] // 2, 2)
        image[top : top + height, left : left + width] = _second(rng)
    return image


def _rings(rng: np.random.Generator, size: tuple[int, int], first: FloatImage) -> FloatImage:
    mask = _wave(_from_point(rng, size), rng.uniform(0.08, 0.4), rng.uniform(0.2, 1.0))
    return _mix(mask, first, _second(rng))


def _plaid(rng: np.random.Generator, size: tuple[int, int], first: FloatImage) -> FloatImage:
    ys, xs = _axes(size)
    period = rng.uniform(0.12, 0.4)
    mask = 0.5 * _wave(ys, period, 0.3) + 0.5 * _wave(xs, period, 0.3)
    return _mix(mask.astype(np.float32), first, _second(rng))


def _marble(rng: np.random.Generator, size: tuple[int, int], first: FloatImage) -> FloatImage:
    bumps = sum(_cloud(rng, size, 3 * 2**i) / 2**i for i in range(4))
    mask = _wave((_along(rng, size) + np.float32(0.5) * bumps), rng.uniform(0.2, 0.6), 1.0)
    return _mix(mask, first, _second(rng))


def _bokeh(rng: np.random.Generator, size: tuple[int, int], first: FloatImage) -> FloatImage:
    image = np.broadcast_to(first, (*size, 3)).astype(np.float32)
    for _ in range(int(rng.integers(6, 18))):
        disc = np.clip((rng.uniform(0.04, 0.2) - _from_point(rng, size)) * 40, 0, 1)
        image = _mix((disc * rng.uniform(0.2, 0.7)).astype(np.float32), image, _second(rng))
    return image


def _horizon(rng: np.random.Generator, size: tuple[int, int], first: FloatImage) -> FloatImage:
    ys, xs = _axes(size)
    hills = _cloud(rng, size, 4)[:1] * rng.uniform(0.05, 0.3)
    line = rng.uniform(0.35, 0.75)
    ground = ((ys - line - hills) > 0).astype(np.float32) * np.ones_like(xs)
    shade = (1.0 - 0.3 * ys)[..., None]
    return (_mix(ground, first, _second(rng)) * shade).astype(np.float32)


_Draw = Callable[[np.random.Generator, tuple[int, int], FloatImage], FloatImage]

_DRAW: dict[str, _Draw] = {
    "flat": _flat,
    "gradient": _gradient,
    "glow": _glow,
    "grain": _grain,
    "clouds": _clouds,
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "patches": _patches,
    "rings": _rings,
    "plaid": _plaid,
    "marble": _marble,
    "bokeh": _bokeh,
    "horizon": _horizon,
}
HELDOUT_FAMILIES: tuple[str, ...] = ("rings", "plaid", "marble", "bokeh", "horizon")
TRAIN_FAMILIES: tuple[str, ...] = tuple(name for name in _DRAW if name not in HELDOUT_FAMILIES)


def draw_background(
    rng: np.random.Generator, size: tuple[int, int], families: tuple[str, ...]
) -> tuple[FloatImage, Background]:
    """Draw one background.

    Args:
        rng: random number generator.
        size: height and width in pixels.
        families: kinds of patterns to choose from.
    Returns:
        RGB values in [0, 255], float32 [H, W, 3], and a description.
    """
    family = families[rng.integers(len(families))]
    colour = list(COLOURS)[rng.integers(len(COLOURS))]
    image = _DRAW[family](rng, size, _tint(rng, colour))
    return np.clip(image, 0, 255), Background(family, colour)
