"""Tile sizes by architecture and shape: the heuristic table that needs no GPU to read.

Standard library only, so that the launcher, the ahead-of-time compiler and tests share it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

__all__ = [
    "SHARED_LIMITS",
    "Shape",
    "Tiles",
    "ahead_of_time",
    "candidates",
    "check_shared",
    "choose",
    "shared_bytes",
    "tails",
]

# Bytes of shared memory that one block may have (CUDA C++ programming guide, table of compute
# capabilities). The compiler does not check them.
SHARED_LIMITS = {
    72: 96 * 1024,
    75: 64 * 1024,
    80: 163 * 1024,
    86: 99 * 1024,
    87: 163 * 1024,
    89: 99 * 1024,
    90: 227 * 1024,
    100: 227 * 1024,
    110: 227 * 1024,
    120: 99 * 1024,
}
# Below this many programs most of a GPU idles, and smaller tiles or splits over patches pay.
_FEW_PROGRAMS = 64


@dataclass(frozen=True)
class Shape:
    """What tiles are chosen for: sizes, bytes an element, whether there is a second bank."""

    batch: int
    patches: int
    classes: int
    dim: int
    item_bytes: int = 2
    has_values: bool = False


@dataclass(frozen=True)
class Tiles:
    """Constants of one forward launch; see forward_kernel."""

    block_c: int
    images: int
    block_p: int
    block_d: int
    warps: int
    stages: int
    tails: tuple[int, int] = (0, 0)
    splits: int = 1
    group: int = 8
    fuse_length: bool = False


def shared_bytes(tiles: Tiles, item_bytes: int, has_values: bool) -> int:
    """Operand tiles in flight; what the compiler adds for reductions is far smaller."""
    rows = tiles.block_c * (2 if has_values else 1) + tiles.images * tiles.block_p
    return rows * tiles.block_d * item_bytes * tiles.stages


def check_shared(architecture: int, needed: int, what: str) -> None:
    """Raise when a kernel asks for more shared memory than the architecture has.

    Raises:
        ValueError: names the kernel, what it needs and the limit.
    """
    limit = SHARED_LIMITS.get(architecture)
    if limit is None:
        known = ", ".join(f"sm_{each}" for each in SHARED_LIMITS)
        raise ValueError(f"sm_{architecture}: unsupported architecture; supported: {known}")
    if needed > limit:
        raise ValueError(
            f"{what} needs {needed} bytes of shared memory, sm_{architecture} has {limit}; "
            "choose smaller tiles or fewer stages"
        )


def choose(architecture: int, shape: Shape) -> Tiles:
    """Tiles for a shape by rules of thumb; an unknown architecture is treated as the one below."""
    limit = _limit(architecture)
    if shape.patches <= 64:
        tiles = _many_images(shape, architecture)
    else:
        tiles = _one_image(shape, architecture)
    programs = -(-shape.classes // tiles.block_c) * -(-shape.batch // tiles.images)
    if programs < _FEW_PROGRAMS:
        tiles = _few_programs(shape)
    while shared_bytes(tiles, shape.item_bytes, shape.has_values) > limit * 9 // 10:
        tiles = _smaller(tiles)
    return tiles


def _limit(architecture: int) -> int:
    known = [each for each in SHARED_LIMITS if each <= architecture]
    return SHARED_LIMITS[max(known, default=75)]


def _one_image(shape: Shape, architecture: int) -> Tiles:
    """Full tiles of 128 patches (256 where they fit), tails for the rest."""
    if architecture in (90, 100) and shape.item_bytes == 2 and not shape.has_values:
        block_p = 256 if shape.patches % 256 == 0 else 128
        tiles = Tiles(128, 1, block_p, 64, warps=8, stages=4 if block_p == 128 else 3)
    else:
        tiles = Tiles(64 if shape.has_values else 128, 1, 128, 32, warps=8, stages=3)
    return replace(tiles, tails=tails(shape.patches, tiles.block_p))


def _many_images(shape: Shape, architecture: int) -> Tiles:
    """Short rows of patches: several images share a class tile, or it is read too often."""
    block_p = max(16, _power_of_two(shape.patches))
    images = max(1, min(128 // block_p, _power_of_two(shape.batch)))
    block_d = 64 if architecture in (80, 87, 90, 100, 110) and shape.item_bytes == 2 else 32
    block_c = 64 if shape.has_values else 128
    return Tiles(block_c, images, block_p, block_d, warps=8, stages=3)


def _few_programs(shape: Shape) -> Tiles:
    """Latency: small tiles, lengths in the same pass, and splits over patches."""
    block_p = 32 if shape.patches > 32 else 16
    blocks = -(-shape.patches // block_p)
    programs = -(-shape.classes // 16) * shape.batch
    splits = max(1, min(blocks, _FEW_PROGRAMS // programs))
    block_d = 128 if shape.item_bytes == 2 else 64
    return replace(_latency_tiles(16, block_p, splits), block_d=block_d, stages=3)


def ahead_of_time(architecture: int, item_bytes: int, kind: str) -> Tiles:
    """Tiles of the kernels that are compiled without knowing a shape.

    Args:
        architecture: compute capability, 72 for 7.2.
        item_bytes: 2 for half precision, 4 for fp32.
        kind: "wide" for many classes or images, "narrow" for few, "general" for a D that is no
            multiple of 64, unaligned rows, or separate values.
    """
    asynchronous = architecture >= 80
    block_d = 64 if item_bytes == 2 and asynchronous else 32
    if kind == "narrow":
        tiles = Tiles(16, 1, 64, block_d, warps=4, stages=3, fuse_length=True)
    elif kind == "general":
        tiles = Tiles(32, 1, 64, 32, warps=4, stages=2, fuse_length=True)
    else:
        rows = 128 if item_bytes == 2 and asynchronous else 64
        # a fourth stage where two programs still share a multiprocessor
        stages = 4 if _limit(architecture) > 100 * 1024 else 3
        tiles = Tiles(rows, 1, 64, block_d, warps=8, stages=stages, fuse_length=True)
    # without asynchronous copies more than one stage only costs registers
    return tiles if asynchronous else replace(tiles, stages=1)


def tails(patches: int, block_p: int) -> tuple[int, int]:
    """At most two power-of-two tiles (16 and up) that cover what full tiles leave of P."""
    rest = patches % block_p
    if rest == 0:
        return (0, 0)
    sizes = [16 << step for step in range(10) if 16 << step <= block_p]
    pairs = [(first, second) for first in sizes for second in (0, *sizes) if second <= first]
    # least padding first; of equals the one with a single tile
    return min((pair for pair in pairs if sum(pair) >= rest), key=lambda pair: (sum(pair), pair[1]))


def _smaller(tiles: Tiles) -> Tiles:
    if tiles.stages > 2:
        return replace(tiles, stages=tiles.stages - 1)
    if tiles.block_d > 32:
        return replace(tiles, block_d=tiles.block_d // 2)
    if tiles.stages > 1:
        return replace(tiles, stages=1)
    if tiles.block_d > 16:
        return replace(tiles, block_d=16)
    return replace(tiles, block_c=tiles.block_c // 2)


def _power_of_two(size: int) -> int:
    return 1 << max(0, size - 1).bit_length()


def candidates(architecture: int, shape: Shape) -> Iterator[Tiles]:
    """The heuristic choice first, then others that fit: what autotuning measures."""
    chosen = choose(architecture, shape)
    yield chosen
    seen = {chosen}
    for tiles in (*_large_candidates(shape), *_latency_candidates(shape)):
        fits = shared_bytes(tiles, shape.item_bytes, shape.has_values) <= _limit(architecture)
        if fits and tiles not in seen:
            seen.add(tiles)
            yield tiles


def _large_candidates(shape: Shape) -> list[Tiles]:
    if shape.classes < 128:
        return []
    found = []
    for block_c, width, block_d, warps, stages in (
        (128, 256, 64, 8, 3),
        (256, 128, 64, 8, 3),
        (128, 128, 64, 8, 4),
        (128, 128, 64, 4, 4),
        (128, 128, 128, 8, 2),
        (128, 128, 32, 8, 4),
        (64, 256, 64, 4, 3),
        (64, 128, 64, 4, 4),
    ):
        block_p = min(width, max(16, _power_of_two(shape.patches)))
        images = max(1, min(width // block_p, _power_of_two(shape.batch)))
        plain = Tiles(block_c, images, block_p, block_d, warps, stages)
        found.append(plain)
        cut = tails(shape.patches, block_p)
        if images == 1 and cut != (0, 0) and shape.patches > block_p:
            found.append(replace(plain, tails=cut))
    return found


def _latency_candidates(shape: Shape) -> list[Tiles]:
    if -(-shape.classes // 32) * shape.batch > 4 * _FEW_PROGRAMS:
        return []
    options = ((16, 16, 8), (16, 32, 4), (16, 64, 1), (32, 32, 4), (16, 64, 4))
    return [
        replace(_latency_tiles(block_c, block_p, splits), block_d=block_d)
        for block_c, block_p, splits in options
        for block_d in (64, 128)
        if splits <= -(-shape.patches // block_p)
    ]


def _latency_tiles(block_c: int, block_p: int, splits: int) -> Tiles:
    return Tiles(
        block_c, 1, block_p, 64, warps=4, stages=4, splits=splits, group=1, fuse_length=True
    )
