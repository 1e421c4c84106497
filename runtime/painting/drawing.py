"""Pictures with Pillow: from frames, with heatmaps, in boxes of another size, as JPEG."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.bundle.input_spec import InputSpec
from taidpt.runtime.preprocess.preprocessor import U8Array, to_u8
from taidpt.runtime.results import TagResult

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["font", "jpeg", "letterbox", "paint_heatmap", "paint_regions", "rgb_image"]

# Dark blue through violet and orange to pale yellow. Lightness rises, so it also works in grey.
_HEAT = np.array(
    [[13, 8, 70], [98, 1, 126], [177, 42, 100], [230, 92, 48], [251, 165, 10], [252, 255, 164]]
)
# Opacity at the warmest patch. The coldest is clear, so that the picture stays visible.
_HEAT_OPACITY = 0.75


def rgb_image(frame: npt.NDArray[Any]) -> Image:
    """Convert any frame [H, W, 1, 3 or 4] to an RGB picture."""
    from PIL import Image

    pixels = to_u8(frame)
    rgb = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[:, :, :3]
    return Image.fromarray(np.ascontiguousarray(rgb))


def letterbox(image: Image, size: tuple[int, int]) -> Image:
    """Scale a picture to fit a width and height in pixels, with black bars where it is narrower."""
    from PIL import Image

    if image.size == size:
        return image
    scale = min(size[0] / image.width, size[1] / image.height)
    # a pixel less than the frame, of an odd width, is no bar
    fitted = tuple(
        whole if abs(whole - side * scale) < 2 else max(round(side * scale), 1)
        for whole, side in zip(size, image.size, strict=True)
    )
    framed = Image.new("RGB", size)
    corner = (size[0] - fitted[0]) // 2, (size[1] - fitted[1]) // 2
    framed.paste(image.resize((fitted[0], fitted[1])), corner)
    return framed


def paint_heatmap(image: Image, result: TagResult, name: str, spec: InputSpec) -> Image:
    """Blend a tag's heatmap over the part of the picture that the model sees.

    Args:
        image: the frame, RGB.
        result: the frame's result.
        name: the tag.
        spec: `input` of the bundle's manifest, which says what part that is.
    """
    from PIL import Image

    frame_hw = image.height, image.width
    box = spec.plan(frame_hw).box(frame_hw, spec.crop_hw)
    left, top, right, bottom = (round(edge) for edge in box)
    warmth = _warmth(result.heatmap(name))
    inner = right - left, bottom - top
    colours = Image.fromarray(_colours(warmth)).resize(inner, Image.Resampling.BICUBIC)
    opacity = Image.fromarray((warmth * (255 * _HEAT_OPACITY)).astype(np.uint8))
    painted = image.copy()
    painted.paste(colours, (left, top), opacity.resize(inner, Image.Resampling.BICUBIC))
    return painted


def paint_regions(image: Image, regions: Mapping[str, Sequence[Sequence[float]]]) -> Image:
    """Draw the outlines of named polygons.

    Args:
        image: the frame, RGB.
        regions: name → corners (x, y), in parts of the picture from 0 to 1.
    """
    from PIL import ImageDraw

    painted = image.copy()
    draw = ImageDraw.Draw(painted)
    width = max(image.width // 320, 1)
    letters = font(12 * width)
    for name, points in regions.items():
        corners = [(x * (image.width - 1), y * (image.height - 1)) for x, y in points]
        for ink, breadth in (("black", 3 * width), ("white", width)):  # seen on any picture
            draw.line([*corners, *corners[:2]], ink, breadth, joint="curve")
        draw.text(
            min(corners, key=sum), name, "white", letters, stroke_width=width, stroke_fill="black"
        )
    return painted


@functools.lru_cache(maxsize=4)
def font(size: int) -> Any:
    """A font of this height in pixels."""
    from PIL import ImageFont

    with contextlib.suppress(OSError):  # has more letters than Pillow's own font
        return ImageFont.truetype("DejaVuSans.ttf", size)
    try:
        return ImageFont.load_default(size)
    except (TypeError, OSError):  # Pillow before 10.1 or without FreeType
        return ImageFont.load_default()


def jpeg(image: Image, width: int, quality: int = 80) -> bytes:
    """A JPEG of a picture, scaled down to at most `width` pixels on either side."""
    from PIL import Image

    scale = min(width / max(image.size), 1.0)
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    # Boxes of whole pixels first, then bilinear: a fifth of the time of `thumbnail` for
    # 720p to 640 pixels.
    small = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _warmth(heat: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Similarities scaled to 0 … 1 within this frame."""
    low, high = float(heat.min()), float(heat.max())
    return (heat - low) / (high - low) if high > low else np.zeros_like(heat)


def _colours(warmth: npt.NDArray[np.float32]) -> U8Array:
    at = np.linspace(0, 1, len(_HEAT))
    channels = [np.interp(warmth, at, _HEAT[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.uint8)
