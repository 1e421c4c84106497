"""Reference pictures of the parity gate: generated ones, shipped ones, and the user's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from taidpt.runtime.bundle.input_spec import NV12, InputSpec
from taidpt.runtime.errors import InputError
from taidpt.runtime.preprocess.nv12 import nv12_to_rgb, rgb_to_nv12
from taidpt.runtime.preprocess.preprocessor import Preprocessor, to_u8
from taidpt.runtime.sources.base import SourceOptions
from taidpt.runtime.sources.picture_files import is_image
from taidpt.runtime.sources.pictures import ImageSource

__all__ = [
    "Picture",
    "camera_frames",
    "folder_pictures",
    "frame_maker",
    "generated_pictures",
    "heldout_pictures",
    "rgb_of",
]

Pixels = npt.NDArray[np.uint8]
# Every picture costs a run of PyTorch and one of the graph, and the worst one decides: a few
# shipped pictures and a sample of the user's are enough.
_EVERY = 66  # eight of the 522 held-out pictures
_MOST_OWN = 64


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture, uint8 RGB [H, W, 3] or NV12 [H · 3/2, W], and its name in reports."""

    name: str
    pixels: Pixels


def generated_pictures(side: int) -> list[Picture]:
    """Twelve pictures of varied content, the same at every call.

    Colours differ between channels, so that swapped channels show. Most have detail finer than a
    pixel of the model, so that a resize without antialiasing shows. Sizes and shapes vary.

    Args:
        side: of the model's input, in pixels; the pictures are 1.1 to 3 times as large.
    """
    pictures = []
    for index, (name, draw) in enumerate(_DRAWERS.items()):
        generator = np.random.default_rng(1000 + index)
        height, width = (round(side * factor) for factor in _SHAPES[index % len(_SHAPES)])
        values = draw(height, width, generator)
        pixels = np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)
        pictures.append(Picture(f"generated/{name}", pixels))
    return pictures


def heldout_pictures() -> list[Picture]:
    """Some of the toy world's held-out pictures; none where they are not installed."""
    from taidpt.toyworld.assets import load_heldout

    try:
        images, _, _ = load_heldout(every=_EVERY)
    except InputError:
        return []
    return [Picture(f"heldout/{_EVERY * row}", image) for row, image in enumerate(images)]


def folder_pictures(folder: Path, limit: int | None = _MOST_OWN) -> list[Picture]:
    """The pictures of a folder, by name; `limit` evenly spaced ones when there are more.

    One that cannot be read is a warning in the log.

    Raises:
        InputError: there is no such folder, no picture in it, or none that can be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of pictures")
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and is_image(path))
    if not paths:
        raise InputError(f"{folder}: holds no pictures")
    step = -(-len(paths) // (limit or len(paths)))
    return [
        Picture(str(Path(frame.source).relative_to(folder)), _rgb(to_u8(frame.image)))
        for frame in ImageSource(str(folder), paths[::step], SourceOptions())
    ]


def camera_frames(pictures: Sequence[Picture], spec: InputSpec) -> list[Picture]:
    """The pictures as frames of the camera that the graph takes.

    For a graph with a resize inside, they are scaled and cropped to the frame's size, and converted
    to NV12 where the graph takes that. For other graphs they are returned unchanged.
    """
    if spec.baked_resize is None:
        return list(pictures)
    return [Picture(p.name, camera_frame(p.pixels, spec)) for p in pictures]


def camera_frame(pixels: Pixels, spec: InputSpec) -> Pixels:
    """One picture uint8 RGB [H, W, 3] as a frame for a graph with a baked resize."""
    from PIL import Image, ImageOps

    size = spec.width, spec.height
    frame = pixels
    if pixels.shape[:2] != size[::-1]:
        frame = np.asarray(ImageOps.fit(Image.fromarray(pixels), size, Image.Resampling.BICUBIC))
    return rgb_to_nv12(frame, *spec.colours) if spec.format == NV12 else frame


def frame_maker(spec: InputSpec) -> Callable[[Pixels], Pixels]:
    """The function that turns a picture of any size into the graph's input."""
    if spec.baked_resize is None:
        return Preprocessor(spec)
    return lambda pixels: camera_frame(_rgb(to_u8(pixels)), spec)


def rgb_of(frame: Pixels, spec: InputSpec) -> Pixels:
    """A frame as PyTorch takes it: RGB [H, W, 3]."""
    return nv12_to_rgb(frame, *spec.colours) if spec.format == NV12 else frame


def _rgb(pixels: Pixels) -> Pixels:
    rgb = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[:, :, :3]
    return np.ascontiguousarray(rgb)


Values = npt.NDArray[np.float64]
_SHAPES = ((1.5, 2.0), (2.0, 1.3), (1.7, 1.7), (1.1, 3.0), (2.4, 1.6))


def _grid(height: int, width: int) -> tuple[Values, Values]:
    rows, columns = np.mgrid[0:height, 0:width]
    return rows / height, columns / width


def _cloud(height: int, width: int, generator: np.random.Generator) -> Values:
    """Coloured noise of all sizes, strongest in the large ones, as in photographs."""
    total = np.zeros((height, width, 3))
    cells = 2
    while cells <= max(height, width):
        coarse = generator.standard_normal((cells, cells, 3))
        rows = np.arange(height) * cells // height
        columns = np.arange(width) * cells // width
        total += coarse[rows][:, columns] / cells**0.7
        cells *= 2
    spread = total - total.min((0, 1))
    return np.asarray(spread / spread.max((0, 1)))


def _tinted(tint: tuple[float, float, float]) -> Callable[..., Values]:
    def draw(height: int, width: int, generator: np.random.Generator) -> Values:
        return np.asarray(_cloud(height, width, generator) * np.array(tint))

    return draw


def _checkers(height: int, width: int, generator: np.random.Generator) -> Values:
    """Cells of one pixel and a half, fading to two sides: blotches without antialiasing."""
    rows, columns = np.mgrid[0:height, 0:width]
    cells = (rows * 2 // 3 + columns * 2 // 3) % 2
    fade = np.linspace(0, 1, width)[None, :, None] * np.linspace(1, 0.3, height)[:, None, None]
    return np.asarray(cells[:, :, None] * np.array([1.0, 0.85, 0.2]) * fade)


def _zone_plate(height: int, width: int, generator: np.random.Generator) -> Values:
    """Rings that become finer towards the rim."""
    rows, columns = _grid(height, width)
    distance = (rows - 0.5) ** 2 + (columns - 0.4) ** 2
    rings = 0.5 + 0.5 * np.cos(distance * max(height, width) * 1.6)
    return np.stack([rings, 1 - rings, rings * rows], axis=2)


def _stripes(height: int, width: int, generator: np.random.Generator) -> Values:
    """Fine stripes over a cloud. Alone they average to one grey, where rounding decides."""
    rows, columns = np.mgrid[0:height, 0:width]
    fine = ((rows + columns * 2) % 5 < 2)[:, :, None] * np.array([0.15, 0.25, 0.4])
    return np.asarray(_cloud(height, width, generator) * np.array([0.3, 0.3, 0.6]) + fine)


def _noise(height: int, width: int, generator: np.random.Generator) -> Values:
    return np.asarray(generator.random((height, width, 3)) * np.array([1.0, 0.6, 0.8]))


def _ramp(height: int, width: int, generator: np.random.Generator) -> Values:
    rows, columns = _grid(height, width)
    return np.stack([columns, rows * 0.4, 1 - columns], axis=2)


def _shapes(height: int, width: int, generator: np.random.Generator) -> Values:
    """Flat discs and boxes in strong colours."""
    rows, columns = _grid(height, width)
    canvas = np.full((height, width, 3), generator.random(3))
    for index in range(14):
        y, x, size = *generator.random(2), 0.05 + 0.15 * generator.random()
        disc = (rows - y) ** 2 + (columns - x) ** 2 < size**2
        box = (abs(rows - y) < size) & (abs(columns - x) < size / 2)
        canvas[disc if index % 2 else box] = generator.random(3)
    return canvas


def _page(height: int, width: int, generator: np.random.Generator) -> Values:
    """Like a page of print: thin dark marks on warm white."""
    marks = generator.random((height, width // 2 + 1)).repeat(2, axis=1)[:, :width] < 0.3
    lines = (np.arange(height) // 3 % 3 == 0)[:, None]
    ink = (marks & lines)[:, :, None]
    return np.where(ink, np.array([0.1, 0.1, 0.25]), np.array([0.98, 0.95, 0.85]))


def _night(height: int, width: int, generator: np.random.Generator) -> Values:
    """Dark, with points of light."""
    canvas = _cloud(height, width, generator) * 0.12
    lights = generator.random((height, width)) < 0.01
    canvas[lights] = np.array([1.0, 0.8, 0.3])
    return canvas


_DRAWERS: dict[str, Callable[..., Values]] = {
    "warm cloud": _tinted((1.0, 0.6, 0.3)),
    "checkers": _checkers,
    "cold cloud": _tinted((0.2, 0.6, 1.0)),
    "zone plate": _zone_plate,
    "stripes": _stripes,
    "green cloud": _tinted((0.4, 1.0, 0.4)),
    "noise": _noise,
    "ramp": _ramp,
    "shapes": _shapes,
    "page": _page,
    "night": _night,
    "grey cloud": lambda height, width, generator: np.repeat(
        _cloud(height, width, generator)[:, :, :1], 3, axis=2
    ),
}
