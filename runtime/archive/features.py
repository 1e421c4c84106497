"""Features of frames to the columns of the table of frames, and back.

An int8 row holds its components in 127ths of the largest. Its scale is not stored: rows have length
1, and get it again when they are read. Rounding to fp16 changes a length by some 1e-5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from taidpt.runtime.adapting.similarity import Features
from taidpt.runtime.archive.schema import FeatureLayout

__all__ = ["StoredFeatures", "decode_features", "encode_features", "feature_columns"]

Array = npt.NDArray[Any]
# Column → one row a frame, as it is stored.
StoredFeatures = dict[str, Array]

_LEVELS = 127
_LEAST = 1e-12  # keeps rows of zeros finite


def encode_features(whole: Array, patches: Array, layout: FeatureLayout) -> StoredFeatures:
    """The stored form of one frame's features.

    Args:
        whole: the global feature, [D] or [tiles, D].
        patches: unit rows, [P, D].
        layout: what is stored.
    """
    if layout.kind == "none":
        return {}
    stored = {"global_features": whole.astype(np.float16).ravel()}
    if layout.kind == "patches":
        stored["patch_features"] = patches.astype(np.float16)
    if layout.kind == "patches-int8":
        largest = np.maximum(np.abs(patches).max(axis=1, keepdims=True), _LEAST)
        stored["patch_features"] = np.rint(patches * (_LEVELS / largest)).astype(np.int8)
    return stored


def feature_columns(rows: list[StoredFeatures], layout: FeatureLayout) -> list[Any]:
    """The Arrow columns of N frames, in the order of the layout's fields."""
    columns = []
    for field in layout.fields():
        values = [row[field.name] for row in rows]
        if field.name == "patch_features":
            buffer = pa.py_buffer(np.stack(values))
            size = field.type.byte_width
            columns.append(pa.Array.from_buffers(pa.binary(size), len(rows), [None, buffer]))
        else:
            flat = pa.array(np.concatenate(values))
            columns.append(pa.FixedSizeListArray.from_arrays(flat, field.type.list_size))
    return columns


def decode_features(table: Any, layout: FeatureLayout) -> Features:
    """The features of N stored frames.

    Args:
        table: an Arrow table or record batch with the columns of the layout.
        layout: what is stored; not "none".
    Returns:
        Unit rows, float32; without stored patches those have P = 0.
    """
    count = table.num_rows
    whole = _numbers(table.column("global_features")).reshape(count, *layout.global_shape)
    features = whole.astype(np.float32)
    if not layout.has_patches:
        return Features(features, np.zeros((count, 0, layout.dim), np.float32))
    kind = np.int8 if layout.kind == "patches-int8" else np.float16
    column = _one_chunk(table.column("patch_features"))
    values = np.frombuffer(column.buffers()[1], kind)
    first = column.offset * layout.patches * layout.dim
    patches = values[first : first + count * layout.patches * layout.dim].astype(np.float32)
    patches = patches.reshape(count, layout.patches, layout.dim)
    if kind is np.int8:
        squares = np.einsum("npd,npd->np", patches, patches)
        patches /= np.sqrt(np.maximum(squares, _LEAST))[..., None]
    return Features(features, patches)


def _numbers(column: Any) -> Array:
    return np.asarray(_one_chunk(column).flatten())


def _one_chunk(column: Any) -> Any:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
