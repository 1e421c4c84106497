"""The tables of an archive, schema 1 (docs/archive.md describes the columns)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

__all__ = ["SCHEMA", "TABLES", "FeatureLayout", "table_schemas"]

SCHEMA = "taidpt-archive/1"
# `manifest` is written last: a shard is whole where its part of this table is.
TABLES = ("events", "frames", "errors", "manifest")


@dataclass(frozen=True)
class FeatureLayout:
    """Which features the table of frames holds, and their shapes.

    Attributes:
        kind: one of `taidpt.runtime.archive.FEATURES`.
        global_shape: of a frame's global feature, [D] or [tiles, D].
        patches: P, the number of patches of a frame.
    """

    kind: str
    global_shape: tuple[int, ...]
    patches: int

    @property
    def dim(self) -> int:
        """D, the size of the joint space."""
        return self.global_shape[-1]

    @property
    def has_patches(self) -> bool:
        """Whether patch features are stored."""
        return self.kind.startswith("patches")

    def fields(self) -> list[Any]:
        """The columns of the table of frames that hold features."""
        if self.kind == "none":
            return []
        whole = 1
        for size in self.global_shape:
            whole *= size
        columns = [pa.field("global_features", pa.list_(pa.float16(), whole), nullable=False)]
        if self.has_patches:
            width = 1 if self.kind == "patches-int8" else 2
            size = self.patches * self.dim * width
            columns.append(pa.field("patch_features", pa.binary(size), nullable=False))
        return columns


def table_schemas(layout: FeatureLayout) -> dict[str, Any]:
    """Table → its Arrow schema."""
    clip = pa.field("clip", pa.string(), nullable=False)
    best = pa.struct(
        [
            pa.field("tag", pa.string(), nullable=False),
            pa.field("score", pa.float32(), nullable=False),
            pa.field("on", pa.bool_(), nullable=False),
            pa.field("probability", pa.float32()),
        ]
    )
    columns = {
        "events": [
            clip,
            pa.field("tag", pa.string(), nullable=False),
            pa.field("start_s", pa.float64()),
            pa.field("end_s", pa.float64()),
            pa.field("peak", pa.float32(), nullable=False),
            pa.field("probability", pa.float32()),
            pa.field("open", pa.bool_(), nullable=False),
        ],
        "frames": [
            clip,
            pa.field("index", pa.int64(), nullable=False),
            pa.field("time_s", pa.float64()),
            pa.field("top", pa.list_(pa.field("element", best, nullable=False)), nullable=False),
            *layout.fields(),
        ],
        "errors": [
            clip,
            pa.field("reason", pa.string(), nullable=False),
            pa.field("frames", pa.int64(), nullable=False),
        ],
        "manifest": [
            clip,
            pa.field("bytes", pa.int64(), nullable=False),
            pa.field("modified_ns", pa.int64(), nullable=False),
            pa.field("frames", pa.int64(), nullable=False),
            pa.field("end_s", pa.float64()),
        ],
    }
    return {
        table: pa.schema(fields, {"taidpt.schema": SCHEMA, "taidpt.table": table})
        for table, fields in columns.items()
    }
