"""Scenes of the toy world: one to five emoji on a background, determined by a seed.

Only this module needs the Noto Color Emoji font; the files built from it ship in the package. The
number ranges were chosen by eye, so that scenes vary and their things remain recognisable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from scripts.toyworld.drawing.backgrounds import TRAIN_FAMILIES, Background, draw_background
from scripts.toyworld.drawing.things import THINGS
from taidpt.runtime.errors import MissingDependencyError

__all__ = [
    "FONT_PATH",
    "Placed",
    "Scene",
    "SceneSettings",
    "font_installed",
    "render_scene",
    "sprite",
    "vary_sprite",
]

FONT_PATH = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
_FONT_SIZE = 109  # the only size of the font's bitmaps


@dataclass(frozen=True)
class Placed:
    """One emoji in a scene.

    Attributes:
        thing: index into `THINGS`.
        variant: index into the thing's emoji.
        box: left, top, right, bottom in pixels.
    """

    thing: int
    variant: int
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Scene:
    """A rendered scene and its content.

    Attributes:
        image: uint8 RGB, [H, W, 3].
        placed: the emoji, back to front.
        background: the background.
    """

    image: NDArray[np.uint8]
    placed: tuple[Placed, ...]
    background: Background

    @property
    def things(self) -> tuple[int, ...]:
        """Indices of the things in the scene, sorted, each once."""
        return tuple(sorted({placed.thing for placed in self.placed}))


@dataclass(frozen=True)
class SceneSettings:
    """How scenes are drawn.

    Attributes:
        size: height of the picture in pixels, and its width where `width` is None.
        width: in pixels; things keep the sizes that they have in a square of `size`.
        families: background families to choose from.
        count_weights: probabilities of 1, 2, … emoji per scene.
        repeat: probability that a further emoji repeats a thing of the scene.
        sides: least and largest longer side of an emoji as a share of `size`; None lets the largest
            fall with the number of emoji.
    """

    size: int = 160
    width: int | None = None
    families: tuple[str, ...] = field(default=TRAIN_FAMILIES)
    count_weights: tuple[float, ...] = (0.16, 0.22, 0.24, 0.21, 0.17)
    repeat: float = 0.12
    sides: tuple[float, float] | None = None


def font_installed() -> bool:
    """Whether the emoji font is installed."""
    return FONT_PATH.is_file()


@cache
def _font() -> ImageFont.FreeTypeFont:
    if not font_installed():
        raise MissingDependencyError(
            f"rendering scenes needs the font {FONT_PATH}, which is not installed: "
            "install it with `apt-get install fonts-noto-color-emoji`"
        )
    return ImageFont.truetype(str(FONT_PATH), _FONT_SIZE)


@cache
def sprite(thing: int, variant: int) -> Image.Image:
    """The emoji as an RGBA picture cropped to its ink, about 128 pixels per side."""
    canvas = Image.new("RGBA", (180, 180), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text(
        (12, 12), THINGS[thing].emoji[variant], font=_font(), embedded_color=True
    )
    return canvas.crop(canvas.getbbox())


def _jitter(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Mirror half of the pictures; shift brightness, contrast and each channel slightly."""
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    gain = rng.uniform(0.75, 1.15) * rng.uniform(0.88, 1.12, 3)
    offset = rng.uniform(-14, 14)
    ramp = np.arange(256, dtype=np.float32)
    tables = [np.clip(ramp * g + offset, 0, 255).astype(np.uint8) for g in gain]
    table = np.concatenate([*tables, np.arange(256, dtype=np.uint8)])
    return image.point(table.tolist())


def _tilt(rng: np.random.Generator) -> float:
    """Rotation in degrees: small in four of five cases, otherwise any angle."""
    return float(rng.uniform(-180, 180) if rng.random() < 0.2 else rng.normal(0, 14))


def vary_sprite(rng: np.random.Generator, piece: tuple[int, int], side: int) -> Image.Image:
    """The emoji `(thing, variant)`, jittered and tilted, with `side` pixels on its longer side."""
    source = sprite(*piece)
    ratio = side / max(source.size)
    size = (max(1, round(source.width * ratio)), max(1, round(source.height * ratio)))
    resample = Image.Resampling.BOX if ratio < 0.5 else Image.Resampling.BILINEAR
    scaled = _jitter(rng, source.resize(size, resample))
    return scaled.rotate(_tilt(rng), Image.Resampling.BILINEAR, expand=True)


def _choose_things(rng: np.random.Generator, settings: SceneSettings) -> list[int]:
    count = 1 + int(rng.choice(len(settings.count_weights), p=settings.count_weights))
    chosen: list[int] = []
    for _ in range(count):
        if chosen and rng.random() < settings.repeat:
            chosen.append(chosen[rng.integers(len(chosen))])
        else:
            chosen.append(int(rng.integers(len(THINGS))))
    return chosen


def _sides(rng: np.random.Generator, count: int, settings: SceneSettings) -> list[int]:
    """Longer sides in pixels: a single emoji may fill half the scene, five are small."""
    least, largest = settings.sides or (0.15, (0.75, 0.55, 0.46, 0.40, 0.36)[min(count, 5) - 1])
    shares = np.exp(rng.uniform(np.log(least), np.log(largest), count))
    return [round(settings.size * float(share)) for share in shares]


def _overlap(box: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    """Shared area divided by the smaller area."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return max(width, 0) * max(height, 0) / max(smaller, 1)


def _place(
    rng: np.random.Generator, piece: Image.Image, size: tuple[int, int], earlier: list[Placed]
) -> tuple[int, int, int, int] | None:
    """A box inside the scene that covers little of earlier emoji, or None after 30 tries."""
    for _ in range(30):
        left = int(rng.integers(0, max(size[1] - piece.width, 0) + 1))
        top = int(rng.integers(0, max(size[0] - piece.height, 0) + 1))
        box = (left, top, left + piece.width, top + piece.height)
        if all(_overlap(box, other.box) < 0.2 for other in earlier):
            return box
    return None


def _finish(rng: np.random.Generator, image: Image.Image) -> NDArray[np.uint8]:
    """Blur or grain over the whole picture, in some scenes."""
    if rng.random() < 0.2:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 0.9))))
    array = np.asarray(image)
    if rng.random() < 0.25:
        noise = rng.standard_normal(array.shape, dtype=np.float32) * np.float32(rng.uniform(2, 14))
        array = np.clip(array + noise, 0, 255).astype(np.uint8)
    return array


def render_scene(seed: tuple[int, ...], settings: SceneSettings | None = None) -> Scene:
    """Render one scene; the same seed and settings give the same pixels.

    Args:
        seed: seed of the generator, such as `(split, index)`.
        settings: how to draw, None for `SceneSettings()`.
    Raises:
        MissingDependencyError: the font is not installed.
    """
    settings = settings or SceneSettings()
    rng = np.random.default_rng(seed)
    size = settings.size, settings.width or settings.size
    canvas, background = draw_background(rng, size, settings.families)
    image = Image.fromarray(canvas.astype(np.uint8))
    chosen = _choose_things(rng, settings)
    placed: list[Placed] = []
    for thing, side in zip(chosen, _sides(rng, len(chosen), settings), strict=True):
        variant = int(rng.integers(len(THINGS[thing].emoji)))
        piece = vary_sprite(rng, (thing, variant), side)
        box = _place(rng, piece, size, placed)
        if box is not None:
            image.paste(piece, box[:2], piece)
            placed.append(Placed(thing, variant, box))
    return Scene(_finish(rng, image), tuple(placed), background)
