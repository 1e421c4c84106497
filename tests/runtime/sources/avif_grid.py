"""An AVIF that is a grid of tiles, as phones write large pictures (ISO/IEC 23008-12, 6.6.2.3)."""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["avif_grid"]


def avif_grid(tiles: Sequence[npt.NDArray[np.uint8]]) -> bytes:
    """Tiles beside each other, each an item of its own; uint8 RGB [H, W, 3] of one size."""
    files = [_encode(tile) for tile in tiles]
    height, width = tiles[0].shape[:2]
    total = width * len(tiles)
    grid = struct.pack(">BBBBHH", 0, 0, 0, len(tiles) - 1, total, height)
    items = [grid, *(_find(file, b"mdat")[8:] for file in files)]
    shared = [_find(files[0], kind) for kind in (b"av1C", b"pixi", b"colr")]
    begin = len(_type()) + len(_meta(items, total, width, height, shared, 0)) + 8
    meta = _meta(items, total, width, height, shared, begin)
    return _type() + meta + _box(b"mdat", *items)


def _encode(tile: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(tile).save(file, "AVIF", quality=90)
    return file.getvalue()


def _find(file: bytes, kind: bytes) -> bytes:
    """The box of a kind, at any depth."""
    start = file.index(kind) - 4
    return file[start : start + int.from_bytes(file[start : start + 4], "big")]


def _box(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I4s", len(data) + 8, kind) + data


def _full(kind: bytes, *parts: bytes, version: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", version << 24), *parts)


def _type() -> bytes:
    return _box(b"ftyp", b"avif", bytes(4), b"avifmif1miaf")


def _meta(
    items: list[bytes], total: int, width: int, height: int, shared: list[bytes], begin: int
) -> bytes:
    """The description of the items, whose data begins at `begin`; the grid is item 1."""
    count = struct.pack(">H", len(items))
    starts = itertools.accumulate(map(len, items), initial=begin)
    places = [
        struct.pack(">HHHII", number, 0, 1, start, len(item))
        for number, (start, item) in enumerate(zip(starts, items, strict=False), start=1)
    ]
    kinds = [b"grid", *[b"av01"] * (len(items) - 1)]
    entries = [
        _full(b"infe", struct.pack(">HH4sB", number, 0, kind, 0), version=2)
        for number, kind in enumerate(kinds, start=1)
    ]
    tiles = struct.pack(f">{len(items) - 1}H", *range(2, len(items) + 1))
    sizes = [_full(b"ispe", struct.pack(">II", side, height)) for side in (total, width)]
    # 1 and 2 are the sizes, 3 the decoder's configuration (essential), 4 and 5 the colours
    uses = [struct.pack(">HB3B", 1, 3, 1, 4, 5)]
    uses += [struct.pack(">HB4B", number, 4, 2, 0x83, 4, 5) for number in range(2, len(items) + 1)]
    return _full(
        b"meta",
        _full(b"hdlr", bytes(4), b"pict", bytes(13)),
        _full(b"pitm", struct.pack(">H", 1)),
        _full(b"iloc", b"\x44\x00", count, *places),
        _full(b"iinf", count, *entries),
        _full(b"iref", _box(b"dimg", struct.pack(">HH", 1, len(items) - 1), tiles)),
        _box(
            b"iprp",
            _box(b"ipco", *sizes, *shared),
            _full(b"ipma", struct.pack(">I", len(items)), *uses),
        ),
    )
