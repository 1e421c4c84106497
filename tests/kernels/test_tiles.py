"""The heuristic table: whatever the shape, what it names fits the architecture."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest

from taidpt.kernels.local_similarity.tiles import (
    SHARED_LIMITS,
    Shape,
    Tiles,
    check_shared,
    choose,
    reads_again,
    shared_bytes,
    tails,
)
from tests.support import REPOSITORY

SHAPES = [
    Shape(batch, patches, classes, dim, item, valued)
    for batch, patches, classes, dim, item, valued in itertools.product(
        (1, 8, 64, 512),
        (1, 20, 49, 196, 197, 784),
        (1, 80, 20000),
        (256, 1280),
        (2, 4),
        (False, True),
    )
]


@pytest.mark.parametrize("architecture", [70, *SHARED_LIMITS, 121])
def test_chosen_tiles_fit_shared_memory(architecture: int) -> None:
    limit = SHARED_LIMITS.get(architecture, 99 * 1024 if architecture == 121 else 64 * 1024)
    for shape in SHAPES:
        tiles = choose(architecture, shape)
        assert shared_bytes(tiles, shape.item_bytes, shape.has_values) <= limit
        assert tiles.splits == 1 or tiles.tails == (0, 0)
        assert min(tiles.block_c, tiles.images * tiles.block_p, tiles.block_d) >= 16


@pytest.mark.parametrize("architecture", SHARED_LIMITS)
def test_at_most_two_launches(architecture: int) -> None:
    """Lengths of patches before, or splits joined after, never both."""
    for shape in SHAPES:
        tiles = choose(architecture, shape)
        assert 1 + (not tiles.fuse_length) + (tiles.splits > 1) <= 2


@pytest.mark.parametrize("architecture", [80, 90])
def test_odd_patch_counts_waste_little_of_a_tile(architecture: int) -> None:
    """Columns that are computed for nothing, where batch and classes are many."""
    for patches in (49, 196, 197, 256, 784):
        tiles = choose(architecture, Shape(64, patches, 20000, 1024))
        full, rest = divmod(patches, tiles.block_p)
        columns = full * tiles.block_p + (0 if not rest else sum(tiles.tails) or tiles.block_p)
        assert columns <= 1.35 * patches if patches < 64 else columns <= 1.05 * patches


def measured() -> list[dict[str, Any]]:
    record = REPOSITORY / "benchmarks" / "results" / "limits-nvidia-h200-2026-11-28.json"
    rows: list[dict[str, Any]] = json.loads(record.read_text("utf-8"))["rows"]
    return [row for row in rows if "fastest" in row]


@pytest.mark.parametrize("row", measured(), ids=lambda row: row["problem"])
def test_hopper_gets_tiles_close_to_the_fastest_measured(row: dict[str, Any]) -> None:
    """Of at most two launches, without the ones that read patches again now (`reads_again`)."""
    batch, patches, classes, dim = map(int, re.findall(r"\d+", row["problem"]))
    times = {**row["fastest"], row["table"]["tiles"]: row["table"]["ms"]}
    fair = {}
    for name, ms in times.items():
        tiles = eval(name, {"Tiles": Tiles})
        launches = 1 + (not tiles.fuse_length) + (tiles.splits > 1)
        if launches <= 2 and not reads_again(90, tiles):
            fair[tiles] = ms
    chosen = choose(90, Shape(batch, patches, classes, dim))
    assert fair[chosen] <= 1.05 * min(fair.values())


@pytest.mark.parametrize(("patches", "expected"), [(256, (0, 0)), (196, (64, 16)), (197, (64, 16))])
def test_tails_cover_with_little_padding(patches: int, expected: tuple[int, int]) -> None:
    assert tails(patches, 128) == expected


def test_tails_cover_every_remainder() -> None:
    for patches in range(1, 800):
        rest = patches % 128
        assert sum(tails(patches, 128)) >= rest


def test_shared_memory_error_names_the_limit() -> None:
    check_shared(75, 65536, "kernel")
    with pytest.raises(ValueError, match=r"tile needs 98304 bytes.*sm_75 has 65536"):
        check_shared(75, 98304, "tile")
    with pytest.raises(ValueError, match="sm_88: unsupported architecture; supported: sm_72"):
        check_shared(88, 1, "tile")
