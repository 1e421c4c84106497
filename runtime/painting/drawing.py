"""Paint tags with bars, and heatmaps, onto a frame with Pillow."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.bank.thresholds import is_from_texts
from taidpt.runtime.preprocess.preprocessor import U8Array, to_u8
from taidpt.runtime.preprocess.resize import plan_crop
from taidpt.runtime.printable import printable
from taidpt.runtime.results import Tag, TagResult

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["draw_tags", "jpeg", "paint_heatmap", "rgb_image"]

# RGB of text, bar of a tag that is on, bar of one that is off; RGBA of the panel behind them.
_INK, _ON, _OFF, _SHADE = (255, 255, 255), (64, 214, 130), (120, 130, 145), (0, 0, 0, 150)
# Dark blue through violet and orange to pale yellow. Lightness rises, so it also works in grey.
_HEAT = np.array(
    [[13, 8, 70], [98, 1, 126], [177, 42, 100], [230, 92, 48], [251, 165, 10], [252, 255, 164]]
)


def rgb_image(frame: npt.NDArray[Any]) -> Image:
    """Convert any frame [H, W, 1, 3 or 4] to an RGB picture."""
    from PIL import Image

    pixels = to_u8(frame)
    rgb = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[:, :, :3]
    return Image.fromarray(np.ascontiguousarray(rgb))


def draw_tags(image: Image, tags: list[Tag], on: tuple[str, ...]) -> Image:
    """Paint a panel at the top left: name, score and bar of each tag, green when it is on.

    A last line names the origin of thresholds from texts.
    """
    from PIL import Image, ImageDraw

    size = max(10, round(image.height / 28))
    row, pad, width = round(size * 1.5), max(3, size // 3), min(image.width, size * 16)
    panel = Image.new("RGBA", image.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(panel)
    sources = sorted({tag.threshold_source for tag in tags if is_from_texts(tag.threshold_source)})
    rows = len(tags) + bool(sources)
    draw.rectangle((0, 0, width, row * rows + 2 * pad), fill=_SHADE)
    highest = max((tag.score for tag in tags), default=0.0)
    lowest = min((tag.score for tag in tags), default=0.0)
    font = _font(size)
    for index, tag in enumerate(tags):
        top = pad + index * row
        colour = _ON if tag.name in on else _OFF
        share = (tag.score - lowest) / (highest - lowest) if highest > lowest else 1.0
        length = round((width - 2 * pad) * (0.05 + 0.95 * share))
        draw.rectangle((pad, top + row - pad, pad + length, top + row - pad // 2), fill=colour)
        draw.text((pad, top), f"{printable(tag.name)}  {tag.score:.2f}", fill=_INK, font=font)
    if sources:
        text = f"thresholds {', '.join(sources)}"
        draw.text((pad, pad + row * len(tags)), text, fill=_INK, font=font)
    return Image.alpha_composite(image.convert("RGBA"), panel).convert("RGB")


def paint_heatmap(image: Image, result: TagResult, name: str, input_hw: tuple[int, int]) -> Image:
    """Blend a tag's heatmap over the part of the picture that the model sees.

    Args:
        image: the frame, RGB.
        result: the frame's result.
        name: the tag.
        input_hw: height and width of the model's input, in pixels; they decide the crop.
    """
    from PIL import Image

    frame_hw = image.height, image.width
    box = plan_crop(frame_hw, input_hw).box(frame_hw, input_hw)
    left, top, right, bottom = (round(edge) for edge in box)
    colours = Image.fromarray(_colours(result.heatmap(name)))
    heat = colours.resize((right - left, bottom - top), Image.Resampling.BICUBIC)
    painted = image.copy()
    under = image.crop((left, top, right, bottom))
    painted.paste(Image.blend(under, heat, 0.45), (left, top))
    return painted


def jpeg(image: Image, width: int) -> bytes:
    """A JPEG of a picture, scaled down to at most `width` pixels."""
    import io

    small = image.copy()
    small.thumbnail((width, width))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=80)
    return stream.getvalue()


def _colours(heat: npt.NDArray[np.float32]) -> U8Array:
    low, high = float(heat.min()), float(heat.max())
    share = (heat - low) / (high - low) if high > low else np.zeros_like(heat)
    at = np.linspace(0, 1, len(_HEAT))
    channels = [np.interp(share, at, _HEAT[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.uint8)


@functools.lru_cache(maxsize=4)
def _font(size: int) -> Any:
    from PIL import ImageFont

    with contextlib.suppress(OSError):  # has more letters than Pillow's own font
        return ImageFont.truetype("DejaVuSans.ttf", size)
    try:
        return ImageFont.load_default(size)
    except (TypeError, OSError):  # Pillow before 10.1 or without FreeType
        return ImageFont.load_default()
