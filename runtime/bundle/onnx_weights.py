"""Checks where a graph's external weights are, without any ONNX package.

An ONNX file may name any path for the bytes of a tensor, and libraries differ in the paths that
they refuse. So a bundle is checked here first: the only allowed file is `NAME.onnx.data` beside the
graph.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from taidpt.runtime.bundle.manifest import MANIFEST_FILE, read_manifest
from taidpt.runtime.errors import BundleError

__all__ = ["check_external_data", "data_name", "external_locations"]

# The fields of onnx.proto3 that lead to a tensor: message → field number → message within.
_MODEL = {7: "graph", 20: "training", 25: "function"}
_FIELDS: dict[str, dict[int, str]] = {
    "model": _MODEL,
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_DEEPEST = 100  # nested messages; the limit of protobuf's own readers
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def data_name(graph: str) -> str:
    """The name of the only file that may hold weights of a graph."""
    return f"{graph}.data"


def check_external_data(graph: Path) -> None:
    """Check that a graph refers to no file but its data file beside it, listed in the manifest.

    Raises:
        BundleError: it names another file, its data file is a link or not listed in the manifest
            beside it, or it is no ONNX file.
    """
    allowed = data_name(graph.name)
    for location in set(external_locations(graph)):
        if location != allowed:
            raise BundleError(
                f"{graph}: weights lie in {location!r}, only {allowed!r} beside the graph is "
                "allowed; do not use this bundle"
            )
        beside = graph.with_name(allowed)
        if beside.is_symlink() or not beside.is_file():
            raise BundleError(
                f"{beside}: the graph's weights must be a plain file there; export the bundle again"
            )
        listed = graph.with_name(MANIFEST_FILE).is_file()
        if listed and allowed not in read_manifest(graph.parent)[0].files:
            raise BundleError(
                f"{beside}: holds weights of the graph, and {MANIFEST_FILE} does not list it with "
                "its size and hash; export the bundle again"
            )


def external_locations(graph: Path) -> Iterator[str]:
    """All locations of external data in a graph, its subgraphs and functions.

    Raises:
        BundleError: the file is no ONNX graph, or is truncated.
    """
    if graph.stat().st_size == 0:
        raise BundleError(f"{graph}: not a readable graph (empty); export it again")
    with graph.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            yield from _walk(data, 0, len(data), "model", 0)
        except (IndexError, ValueError) as error:
            raise BundleError(f"{graph}: not a readable graph ({error}); export it again") from None


def _walk(data: mmap.mmap, start: int, end: int, message: str, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    within = _FIELDS[message]
    for number, low, high in _fields(data, start, end):
        part = within.get(number)
        if part == "entry":
            pair = {key: data[a:b] for key, a, b in _fields(data, low, high)}
            if pair.get(1) == b"location":
                yield pair.get(2, b"").decode("utf-8", "replace")
        elif part is not None:
            yield from _walk(data, low, high, part, depth + 1)


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Length-delimited fields of a message: number, start and end of the content."""
    while at < end:
        key = data[at]  # most keys and lengths are one byte: calls would take half of the time
        key, at = (key, at + 1) if key < 0x80 else _varint(data, at, end)
        kind = key & 7
        if kind == _BYTES:
            length = data[at]
            length, at = (length, at + 1) if length < 0x80 else _varint(data, at, end)
            if at + length > end:
                raise ValueError("cut off")
            yield key >> 3, at, at + length
            at += length
        elif kind == _VARINT:
            _, at = _varint(data, at, end)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind}")
    if at != end:
        raise ValueError("cut off")


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("cut off")
