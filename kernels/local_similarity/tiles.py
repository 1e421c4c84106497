"""Tile sizes by architecture and shape: a cost model that needs no GPU to read.

Standard library only, so that the launcher, the ahead-of-time compiler and tests share it.
Tiles are chosen, not measured at run time: `triton.autotune` varies the constants of one launch,
and good tiles here also differ in the number of launches (splits over patches, lengths first).
`benchmarks/kernels.py --only tiles` measures the choice beside its neighbours on a GPU.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

__all__ = [
    "SHARED_LIMITS",
    "GradientTiles",
    "Shape",
    "Tiles",
    "ahead_of_time",
    "check_shared",
    "choose",
    "gradient_tiles",
    "reads_again",
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
# Multiprocessors: the small GPUs of Jetsons (NVIDIA's data sheets); about what the others have.
_PROCESSORS = {72: 8, 87: 16, 110: 20}
_MANY_PROCESSORS = 128
# Softmax states (classes times images of a tile) that a warp may hold beside its products before
# registers spill, as ptxas reports it: with products by wgmma or tcgen05, and by mma.
_STATES_A_WARP = {90: 128, 100: 128, 110: 128}
_FEW_STATES_A_WARP = 32
# A tile costs what takes longer, its loads or its products, and an overhead: the pipeline fills
# again, nothing hides the softmax. In rows loaded: a multiprocessor of Hopper multiplies 64 columns
# by a class row while L2 delivers one row to it. With an overhead of 96 rows the order of costs is
# that of the times on an H200, at batch 1 to 64 (limits-nvidia-h200-2026-11-28.json).
_PRODUCTS_A_ROW = 64
_TILE_OVERHEAD = 96
# On Hopper a fourth stage pays where a multiprocessor runs few programs one after another: measured
# up to 5 rounds of programs (four stages), and from 10 on (three, or a difference below 3 %).
_ROUNDS_OF_FOUR_STAGES = 8
# The share of an architecture's shared memory that operand tiles may take; a tenth is left for what
# the compiler adds for reductions and layout conversions.
_OPERAND_SHARE = 0.9


class Shape(NamedTuple):
    """Sizes that tiles are chosen by, bytes an element, and whether there is a second bank."""

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


@dataclass(frozen=True)
class GradientTiles:
    """Constants of one launch of gradient_kernel."""

    block_r: int
    block_c: int
    block_d: int
    warps: int
    stages: int
    group: int = 8


@functools.cache
def gradient_tiles(architecture: int, item_bytes: int) -> GradientTiles:
    """Tiles of the backward pass: the largest for which ptxas reports no register spill."""
    if architecture < 80:
        return GradientTiles(64, 64, 32, warps=8, stages=1)
    if item_bytes == 4:
        return GradientTiles(64, 64, 32, warps=8, stages=3)
    return GradientTiles(128, 128, 64, warps=8, stages=3)


def shared_bytes(tiles: Tiles, item_bytes: int, has_values: bool) -> int:
    """Bytes of the operand tiles in flight."""
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


@functools.lru_cache(maxsize=4096)
def choose(architecture: int, shape: Shape) -> Tiles:
    """Tiles for a shape; an unknown architecture is treated as the next older one."""
    tiles = _cheapest_packing(architecture, shape)
    processors = _processors(architecture)
    if _is_hopper(architecture):
        tiles = _adapted_to_hopper(tiles, shape, processors)
    elif _programs(tiles, shape) < processors // 2:
        # with half of the multiprocessors idle smaller tiles or splits over patches pay
        tiles = _few_programs(shape, processors // 2)
    limit = int(_OPERAND_SHARE * _limit(architecture))
    while shared_bytes(tiles, shape.item_bytes, shape.has_values) > limit:
        tiles = _smaller(tiles)
    return tiles


def _adapted_to_hopper(tiles: Tiles, shape: Shape, processors: int) -> Tiles:
    """What an H200 showed: the shorter chain of tiles wins, whatever the number of programs.

    A tile of 16 class rows takes as long as one of 64 by 256, about 5 us of D = 1024.
    """
    few = _few_programs(shape, processors)
    blocks = -(-shape.patches // few.block_p)
    chain = -(-blocks // few.splits)
    if chain <= -(-shape.patches // 256):
        return few
    rounds = -(-_programs(tiles, shape) // processors)
    if rounds <= _ROUNDS_OF_FOUR_STAGES:
        deeper = replace(tiles, stages=4)
        limit = int(_OPERAND_SHARE * SHARED_LIMITS[90])
        if shared_bytes(deeper, shape.item_bytes, shape.has_values) <= limit:
            tiles = deeper
    # few programs read the bank slowly: each waits for its own rows
    if tiles.block_c > 64 and _programs(tiles, shape) < processors // 8:
        tiles = replace(tiles, block_c=64)
    return tiles


def _is_hopper(architecture: int) -> bool:
    return architecture // 10 == 9


def _limit(architecture: int) -> int:
    known = [each for each in SHARED_LIMITS if each <= architecture]
    return SHARED_LIMITS[max(known, default=75)]


def _processors(architecture: int) -> int:
    return _PROCESSORS.get(architecture, _MANY_PROCESSORS)


def _programs(tiles: Tiles, shape: Shape) -> int:
    return -(-shape.classes // tiles.block_c) * -(-shape.batch // tiles.images) * tiles.splits


def _cheapest_packing(architecture: int, shape: Shape) -> Tiles:
    """The way to cut a large problem that loads least.

    Several images may share a class tile, so that full tiles and tails waste little of an odd P.
    """
    roomy = _limit(architecture) > 100 * 1024
    half = shape.item_bytes == 2
    block_d = 64 if half and roomy else 32
    packings = []
    for block_c, width in _outlines(architecture, shape):
        a_warp = _STATES_A_WARP.get(architecture, _FEW_STATES_A_WARP)
        states = a_warp * (4 if block_c * width <= 64 * 128 else 8)
        for images, block_p in _images_and_patches(shape.patches, width, shape.batch):
            held = block_c * images
            if images > 1 and held > states:
                continue
            warps = 4 if held * block_p <= 64 * 128 and held <= 4 * a_warp else 8
            cut = tails(shape.patches, block_p, images) if shape.patches > block_p else (0, 0)
            packings.append(Tiles(block_c, images, block_p, block_d, warps, stages=3, tails=cut))
    return min(packings, key=lambda tiles: (_cost(architecture, tiles, shape), tiles.images))


def _outlines(architecture: int, shape: Shape) -> list[tuple[int, int]]:
    """Class rows and patch columns of a tile whose fp32 products fit the registers."""
    if architecture < 80:  # the compiler multiplies without tensor cores there
        return [(64, 64)]
    if shape.has_values:
        return [(64, 128), (64, 64)]
    outlines = [(128, 128), (64, 128), (64, 64)]
    wide = architecture in _STATES_A_WARP and shape.item_bytes == 2
    # one image's 256 columns spill some registers after the product, two images' 128 do not
    if shape.batch == 1 and not _is_hopper(architecture):
        wide = False
    return [(128, 256), *outlines] if wide else outlines


def _images_and_patches(patches: int, width: int, batch: int) -> Iterator[tuple[int, int]]:
    for images in (1 << step for step in range(_power_of_two(batch).bit_length())):
        block_p = min(width // images, max(16, _power_of_two(patches)))
        # one image's 256 columns are for a batch of one
        if 16 <= block_p <= (256 if batch == 1 else 128):
            yield images, block_p


def _cost(architecture: int, tiles: Tiles, shape: Shape) -> int:
    """What a multiprocessor's programs cost in all, in rows loaded."""
    full, rest = divmod(shape.patches, tiles.block_p)
    widths = [tiles.block_p] * full
    if rest:
        widths += [tail for tail in tiles.tails if tail] or [tiles.block_p]
    columns = [tiles.images * width for width in widths]
    rows = sum(
        max(tiles.block_c + each, tiles.block_c * each // _PRODUCTS_A_ROW) + _TILE_OVERHEAD
        for each in columns
    )
    return rows * -(-_programs(tiles, shape) // _processors(architecture))


def _few_programs(shape: Shape, wanted: int) -> Tiles:
    """Latency: small tiles, lengths in the same pass, and splits over patches."""
    block_p = 32 if shape.patches > 32 else 16
    blocks = -(-shape.patches // block_p)
    programs = -(-shape.classes // 16) * shape.batch
    splits = max(1, min(blocks, wanted // programs))
    block_d = 128 if shape.item_bytes == 2 else 64
    return Tiles(16, 1, block_p, block_d, 4, 3, splits=splits, group=1, fuse_length=True)


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


def reads_again(architecture: int, tiles: Tiles) -> bool:
    """Whether a fused kernel must load patches a second time for their lengths.

    Hopper multiplies tiles of 64 class rows and more asynchronously, out of shared memory. Triton
    (3.6 and 3.8) gives an operand that is also read into registers one buffer fewer than `stages`,
    so that the next copy overwrites it while the product still reads: similarities were wrong by up
    to 0.06. A load of its own leaves the operand all its buffers. Blackwell's products keep them
    anyway, and other tiles and architectures multiply out of registers.
    """
    return _is_hopper(architecture) and tiles.fuse_length and tiles.block_c >= 64


def tails(patches: int, block_p: int, images: int = 1) -> tuple[int, int]:
    """At most two power-of-two tiles that cover what full tiles leave of P, or (0, 0).

    A tile has 16 columns at least: of one image so many patches, of several together.
    """
    rest = patches % block_p
    if rest == 0:
        return (0, 0)
    least = max(4, 16 // images)
    sizes = [least << step for step in range(10) if least << step <= block_p]
    pairs = [(first, second) for first in sizes for second in (0, *sizes) if second <= first]
    # least padding first; among equals a single tile
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
