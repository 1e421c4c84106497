"""Reading a class bank's file: whole, its header alone, or one matrix mapped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from taidpt.runtime.bank import BANK_KIND, BANK_SCHEMA, ClassBank, FloatArray, Threshold
from taidpt.runtime.errors import BundleError, InputError
from taidpt.runtime.json_reader import JsonReader, parse_object

__all__ = ["is_bank", "map_local_embeddings", "read_bank", "read_bank_names"]

_MAX_HEADER = 64 << 20


def read_bank(path: Path) -> ClassBank:
    """Read a bank that `ClassBank.save` wrote; its errors are those of `ClassBank.load`."""
    header = _read_header(path)
    arrays = _read_arrays(path)
    try:
        return ClassBank(
            names=header.strings("names"),
            global_embeddings=arrays["global_embeddings"],
            local_embeddings=arrays["local_embeddings"],
            scale=arrays["scale"],
            bias=arrays["bias"],
            value_embeddings=arrays.get("value_embeddings"),
            thresholds=_read_thresholds(header),
            probabilities=_read_probabilities(header),
            metadata=header.child("metadata").document,
        )
    except KeyError as error:
        raise BundleError(f"{path}: the bank has no tensor {error}") from None
    except InputError as error:
        raise BundleError(f"{path}: {error}") from None


def _read_thresholds(header: JsonReader) -> tuple[Threshold, ...]:
    """At once where all are whole; else one by one, which says what is wrong with which."""
    found = header.document.get("thresholds")
    if isinstance(found, list) and all(map(_is_threshold, found)):
        return tuple(Threshold(item["on"], item["off"], item["source"]) for item in found)
    return tuple(map(Threshold.from_json, header.children("thresholds")))


def _is_threshold(item: Any) -> bool:
    if type(item) is not dict:
        return False
    on, off = item.get("on"), item.get("off")
    plain = type(on) is float and type(off) is float and off <= on
    return plain and type(item.get("source")) is str


def _read_probabilities(header: JsonReader) -> tuple[dict[str, Any] | None, ...]:
    """Maps of a calibrated bank; banks of earlier versions have no such key."""
    if "probabilities" not in header:
        return ()
    found = header.document["probabilities"]
    if not isinstance(found, list) or not all(map(_is_map_or_null, found)):
        header.fail("probabilities", "a list of objects and nulls")
    return tuple(found)


def _is_map_or_null(item: object) -> bool:
    return item is None or isinstance(item, dict)


def is_bank(path: Path) -> bool:
    """Whether a file calls itself a bank; looks at its header alone."""
    try:
        outer, _ = _read_outer(path)
        document = json.loads(outer["__metadata__"]["taidpt"])
        return bool(document["kind"] == BANK_KIND)
    except (InputError, BundleError, ValueError, KeyError, TypeError):
        return False


def read_bank_names(path: Path) -> tuple[str, ...]:
    """The tag names of a bank file, from its header alone.

    Raises:
        BundleError: the header is damaged, newer, or not a bank's.
    """
    return _read_header(path).strings("names")


def map_local_embeddings(path: Path) -> FloatArray:
    """The local class embeddings of a bank file, mapped: nothing is read until a row is used.

    The map keeps its content when the file is replaced, so it stays one with a running graph.

    Returns:
        float32 [C, D], read-only.
    Raises:
        BundleError: the header is damaged.
    """
    outer, begin = _read_outer(path)
    entry = JsonReader(outer.get("local_embeddings"), f"{path} (local_embeddings)")
    entry.choice("dtype", ("F32",))
    shape, offsets = entry.integers("shape"), entry.integers("data_offsets")
    if len(shape) != 2 or len(offsets) != 2 or offsets[1] - offsets[0] != 4 * shape[0] * shape[1]:
        raise BundleError(f"{path}: damaged bank (local_embeddings); export the bundle again")
    try:
        return np.memmap(path, np.float32, "r", begin + offsets[0], shape)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: damaged bank ({error}); export the bundle again") from None


def _read_header(path: Path) -> JsonReader:
    """The JSON beside the tensors; reads no tensor."""
    outer, _ = _read_outer(path)
    reader = JsonReader(outer.get("__metadata__"), f"{path} (its metadata)")
    inner = JsonReader(parse_object(reader.string("taidpt"), str(path)), str(path))
    inner.choice("kind", (BANK_KIND,))
    if inner.integer("schema") > BANK_SCHEMA:
        raise BundleError(
            f"{path}: bank schema {inner.integer('schema')} is newer than this version knows "
            f"({BANK_SCHEMA}); update taidpt"
        )
    return inner


def _read_outer(path: Path) -> tuple[dict[str, Any], int]:
    """The safetensors header, and where in the file the tensors begin."""
    try:
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            raw = stream.read(size) if size <= _MAX_HEADER else b""
    except OSError as error:
        raise InputError(f"{path}: cannot read the bank: {error.strerror}") from None
    return parse_object(raw, f"{path} (a safetensors header)"), 8 + size


def _read_arrays(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays: dict[str, Any] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path}: damaged bank ({error}); export the bundle again") from None
    return arrays
