"""Picture files → frames, with Pillow: orientation, palettes, 16 bits, limits, truncation."""

from __future__ import annotations

import functools
import io
import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["IMAGE_SUFFIXES", "decode_image", "image_pixels", "is_image", "read_image"]

_LOG = logging.getLogger("taidpt.runtime")

# Formats that Pillow decodes itself. Others start programs (EPS starts Ghostscript), open a window
# to old decoders, or accept any bytes.
_FORMATS = (
    *("PNG", "JPEG", "MPO", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "AVIF", "JPEG2000"),
    *("TGA", "HEIF"),  # HEIF only with a plug-in of its own
)
# fmt: off
IMAGE_SUFFIXES = frozenset([
    ".apng", ".avif", ".avifs", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".j2c", ".j2k",
    ".jfif", ".jp2", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".pbm", ".pgm", ".png",
    ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
])
# fmt: on
# First bytes of pictures whose names have another suffix. Not Pillow's own guess: some formats
# have no signature, and accept any bytes.
_SIGNATURES = (
    *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*"),
    *(b"P5\n", b"P6\n", b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51"),
)
_HEIF_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1")
_DIRECT = ("RGB", "RGBA", "L")
# Memory for one picture: Pillow holds 4 bytes a pixel and the array 3 or 4. A quarter of the
# machine's memory leaves room for the model and the next picture, which is read ahead.
_BYTES_A_PIXEL = 8
_SHARE_OF_MEMORY = 4
# Rows that are converted at a time: bands of up to 4 MB, so that the copy costs no memory.
_BAND_BYTES = 1 << 22


def read_image(path: str | Path) -> npt.NDArray[Any]:
    """Read a picture as a frame, turned upright by its EXIF orientation.

    The first picture of a file with several (animations, pages) is used, with a warning.

    Returns:
        uint8 [H, W, 3], [H, W, 4] (alpha is kept for the resize) or [H, W]; uint16 [H, W] for
        16-bit grey.
    Raises:
        InputError: missing, not a picture, truncated, or too large for this machine's memory.
    """
    return _read(Path(path), str(path), None)


def decode_image(data: bytes, name: str, most_pixels: int | None = None) -> npt.NDArray[Any]:
    """Read a picture that is in memory, as `read_image` does.

    Args:
        data: the content of a picture file.
        name: what errors call it.
        most_pixels: upper bound of its pixels, beside that of the memory.
    """
    return _read(io.BytesIO(data), name, most_pixels)


def _read(file: Path | io.BytesIO, name: str, most_pixels: int | None) -> npt.NDArray[Any]:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 million pixels on; `_check_size` refuses by memory instead
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file, formats=_formats()) as image:
                _check_size(image, name, most_pixels)
                _warn_of_others(image, name)
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                return _pixels(image, name)
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: too many pixels to open safely: {error}") from None
    except UnidentifiedImageError:
        hint = _unknown_hint(file) if isinstance(file, Path) else ""
        raise InputError(f"{name}: not a picture of a known format{hint}") from None
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except MemoryError:
        raise InputError(f"{name}: not enough memory to read the picture") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise InputError(f"{name}: cannot be read as a picture: {error}") from None


def image_pixels(image: Image) -> npt.NDArray[Any]:
    """Convert a PIL picture to a frame as `read_image` returns it, turned upright.

    Raises:
        InputError: float pixels, or grey of more than 16 bits.
    """
    from PIL import ImageOps

    return _pixels(ImageOps.exif_transpose(image), "the picture")


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats that this Pillow has; `Image.open` fails on names that it does not have."""
    from PIL import Image

    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def is_image(path: Path) -> bool:
    """Whether a file is a picture, by its suffix or else by its first bytes."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    return _is_signature(_head(path))


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(12)
    except OSError:
        return b""


def _is_signature(head: bytes) -> bool:
    return (
        head.startswith(_SIGNATURES)
        or (head[:4] == b"RIFF" and head[8:] == b"WEBP")
        or (head[4:8] == b"ftyp" and head[8:] in _HEIF_BRANDS)
    )


def _check_size(image: Image, name: str, most_pixels: int | None) -> None:
    """Refuse a picture that would need more than its share of the memory, or too many pixels."""
    memory = _memory_bytes()
    limit = memory // (_SHARE_OF_MEMORY * _BYTES_A_PIXEL)
    count = image.width * image.height
    if most_pixels is not None and count > most_pixels:
        raise InputError(
            f"{name}: {image.width}x{image.height} is more than {most_pixels / 1e6:.0f} million "
            "pixels; send a smaller picture"
        )
    if count > limit:
        raise InputError(
            f"{name}: {image.width}x{image.height} is too many pixels to open safely: this machine "
            f"has {memory / 1e9:.1f} GB of memory, which allows {limit / 1e6:.0f} million pixels"
        )


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _warn_of_others(image: Image, name: str) -> None:
    """Say that animations and further pages are not used; an MPO's second picture is a preview."""
    count = getattr(image, "n_frames", 1)
    if count > 1 and image.format != "MPO":
        what = "page" if image.format == "TIFF" else "frame"
        _LOG.warning("%s: has %d %ss; the first one is used", name, count, what)


def _pixels(image: Image, name: str) -> npt.NDArray[Any]:
    mode = image.mode
    if mode.startswith("I;16") or mode == "I":
        return _deep_grey(np.asarray(image), name)
    if mode == "F":
        raise InputError(f"{name}: a float picture; save it with 8 or 16 bits a channel")
    if mode not in _DIRECT:
        has_alpha = mode in ("LA", "PA", "La", "RGBa") or "transparency" in image.info
        image = image.convert("RGBA" if has_alpha else "RGB")
    return _as_array(image)


def _as_array(image: Image) -> npt.NDArray[np.uint8]:
    """The same as `np.asarray(image)`, which holds two more copies of the picture."""
    channels = len(image.getbands())
    shape = (image.height, image.width) if channels == 1 else (image.height, image.width, channels)
    array = np.empty(shape, np.uint8)
    step = max(_BAND_BYTES // max(image.width * channels, 1), 1)
    for top in range(0, image.height, step):
        bottom = min(top + step, image.height)
        array[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return array


def _deep_grey(values: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint16]:
    if values.min() < 0 or values.max() > 65535:
        raise InputError(f"{name}: a grey picture of more than 16 bits; save it with 16 bits")
    return values.astype(np.uint16)


def _unknown_hint(path: Path) -> str:
    if path.stat().st_size == 0:
        return " (the file is empty)"
    head = _head(path)
    if head[4:8] == b"ftyp" and head[8:] in _HEIF_BRANDS:
        return " (HEIF or AVIF, which this Pillow cannot read); save it as JPEG or PNG"
    return ""
