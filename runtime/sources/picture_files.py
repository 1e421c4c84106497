"""Picture files → frames, through Pillow: orientation, palettes, 16 bits, bombs, truncation."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["IMAGE_SUFFIXES", "is_image", "read_image"]

IMAGE_SUFFIXES = frozenset(
    [".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"]
)
# Not Pillow's own guess: some formats have no signature, and then any bytes may be one of those.
_SIGNATURES = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF8",
    b"BM",
    b"II*\x00",
    b"MM\x00*",
    b"P5\n",
    b"P6\n",
)
_DIRECT = ("RGB", "RGBA", "L")


def read_image(path: str | Path) -> npt.NDArray[Any]:
    """Read a picture as a frame, turned upright by its EXIF orientation.

    Returns:
        uint8 [H, W, 3], [H, W, 4] (alpha kept for the resize) or [H, W]; uint16 [H, W] for
        16-bit grey.
    Raises:
        InputError: not there, not a picture, truncated, or too large to be safe.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = Path(path)
    try:
        with warnings.catch_warnings():
            # Pillow warns at 89 and refuses at 179 million pixels; the refusal is enough
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
                return _pixels(ImageOps.exif_transpose(image), path)
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: too many pixels to open safely: {error}") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not a picture of a known format{_emptiness(path)}") from None
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as a picture: {error}") from None


def is_image(path: Path) -> bool:
    """Whether a file is a picture: by its suffix, or by its first bytes when it has another."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        with path.open("rb") as stream:
            head = stream.read(12)
    except OSError:
        return False
    return head.startswith(_SIGNATURES) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


def _pixels(image: Image, path: Path) -> npt.NDArray[Any]:
    mode = image.mode
    if mode.startswith("I;16") or mode == "I":
        return _deep_grey(np.asarray(image), path)
    if mode == "F":
        raise InputError(f"{path}: a float picture; save it with 8 or 16 bits a channel")
    if mode in _DIRECT:
        return np.asarray(image)
    has_alpha = mode in ("LA", "PA", "La", "RGBa") or "transparency" in image.info
    return np.asarray(image.convert("RGBA" if has_alpha else "RGB"))


def _deep_grey(values: npt.NDArray[Any], path: Path) -> npt.NDArray[np.uint16]:
    if values.min() < 0 or values.max() > 65535:
        raise InputError(f"{path}: a grey picture of more than 16 bits; save it with 16 bits")
    return values.astype(np.uint16)


def _emptiness(path: Path) -> str:
    return " (the file is empty)" if path.stat().st_size == 0 else ""
