"""A class bank's file, one safetensors file: written, read whole, or in part.

Schema 2 keeps thresholds and probability maps as tensors; schema 1 kept them as JSON, which took
ten times as long to read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.bank.probability_maps import MapJson, ProbabilityMaps
from taidpt.runtime.bank.thresholds import FloatArray, Threshold, Thresholds
from taidpt.runtime.errors import BundleError, InputError
from taidpt.runtime.storage.json_reader import JsonReader, parse_json, parse_object
from taidpt.runtime.storage.outputs import write_output
from taidpt.runtime.storage.tensor_file import TensorFile

__all__ = [
    "BEHIND",
    "BankParts",
    "is_bank",
    "map_local_embeddings",
    "read_bank",
    "read_bank_names",
    "write_bank",
]

Arrays = Mapping[str, npt.NDArray[Any]]

_KIND = "taidpt-bank"
_SCHEMA = 2
_FACT = "map_fact."  # prefix of tensors that hold numbers stored beside the points of the maps
_REQUIRED = ("global_embeddings", "local_embeddings", "scale", "bias")
BEHIND = "background."  # prefix of the arrays of background tags
_ARRAYS = (*_REQUIRED, "value_embeddings", *(BEHIND + name for name in _REQUIRED))


@dataclass(frozen=True)
class BankParts:
    """The content of a bank file, before the parts are checked against each other.

    Attributes:
        names: C tag names.
        arrays: the arrays of `ClassBank` by name.
        thresholds: C thresholds, or none.
        probabilities: C probability maps, or none.
        metadata: free JSON.
    """

    names: tuple[str, ...]
    arrays: Arrays
    thresholds: Thresholds
    probabilities: ProbabilityMaps
    metadata: Mapping[str, Any]


def write_bank(parts: BankParts, path: Path) -> None:
    """Write a bank as one safetensors file, by temporary and rename.

    Raises:
        InputError: the file cannot be written.
    """
    from safetensors.numpy import save

    thresholds, maps = parts.thresholds, parts.probabilities
    numbers = {key: column for key, column in maps.facts.items() if isinstance(column, np.ndarray)}
    arrays = dict(parts.arrays)
    if thresholds:
        arrays["thresholds"] = np.stack([thresholds.on, thresholds.off])
    if len(maps.scores):
        arrays["map_lengths"] = maps.lengths
        arrays["map_points"] = np.stack([maps.scores, maps.probabilities])
        arrays |= {_FACT + key: column for key, column in numbers.items()}
    header = {
        "kind": _KIND,
        "schema": _SCHEMA,
        "names": list(parts.names),
        "threshold_sources": list(thresholds.sources),
        "map_facts": {key: list(maps.facts[key]) for key in maps.facts if key not in numbers},
        "metadata": dict(parts.metadata),
    }
    contiguous = {key: np.ascontiguousarray(value) for key, value in arrays.items()}
    text = json.dumps(header, ensure_ascii=False, allow_nan=False)
    write_output(path, save(contiguous, metadata={"taidpt": text}))


def read_bank(path: Path) -> BankParts:
    """Read a bank file of schema 1 or 2.

    Raises:
        InputError: there is no such file.
        BundleError: the file is damaged, newer, or not a bank.
    """
    with TensorFile(path) as file:
        header = _header(file, path)
        arrays = file.arrays()
    behind = any(name.startswith(BEHIND) for name in arrays)
    required = (*_REQUIRED, *(BEHIND + name for name in _REQUIRED if behind))
    try:
        return BankParts(
            header.strings("names"),
            {name: arrays[name] for name in _ARRAYS if name in arrays or name in required},
            _thresholds(header, arrays),
            _probabilities(header, arrays),
            header.child("metadata").document,
        )
    except KeyError as error:
        raise BundleError(f"{path}: the bank has no tensor {error}") from None
    except InputError as error:
        raise BundleError(f"{path}: {error}") from None


def is_bank(path: Path) -> bool:
    """Whether a file's header says that it is a bank."""
    try:
        with TensorFile(path) as file:
            return bool(parse_json(file.metadata("taidpt"))["kind"] == _KIND)
    except (InputError, BundleError, ValueError, KeyError, TypeError):
        return False


def read_bank_names(path: Path) -> tuple[str, ...]:
    """The tag names of a bank file, from its header alone.

    Raises:
        BundleError: the header is damaged, newer, or not that of a bank.
    """
    with TensorFile(path) as file:
        return _header(file, path).strings("names")


def map_local_embeddings(path: Path) -> FloatArray:
    """Map the local class embeddings of a bank file; rows are read when they are used.

    The map keeps its content when the file is replaced, so it always matches the graph that runs.

    Returns:
        float32 [C, D], read-only.
    Raises:
        BundleError: the header is damaged.
    """
    with TensorFile(path) as file:
        rows = file.map("local_embeddings")
    if rows.dtype != np.float32 or rows.ndim != 2:
        raise BundleError(f"{path}: damaged bank (local_embeddings); export the bundle again")
    return rows


def _header(file: TensorFile, path: Path) -> JsonReader:
    """The JSON in the metadata of the safetensors file."""
    header = JsonReader(parse_object(file.metadata("taidpt"), str(path)), str(path))
    header.choice("kind", (_KIND,))
    schema = header.integer("schema")
    if schema > _SCHEMA:
        raise BundleError(
            f"{path}: bank schema {schema} is newer than this version knows ({_SCHEMA}); update "
            "taidpt"
        )
    return header


def _thresholds(header: JsonReader, arrays: Arrays) -> Thresholds:
    if header.integer("schema") == 1:
        return Thresholds.of(tuple(map(Threshold.from_json, header.children("thresholds"))))
    sources = header.strings("threshold_sources")
    pair = _numbers(arrays, "thresholds", (2, None)) if sources else np.empty((2, 0))
    return Thresholds(pair[0], pair[1], sources)


def _probabilities(header: JsonReader, arrays: Arrays) -> ProbabilityMaps:
    if header.integer("schema") == 1:
        return ProbabilityMaps.of(_maps_of_schema_1(header))
    if "map_lengths" not in arrays:
        return ProbabilityMaps.of(())
    lengths = _numbers(arrays, "map_lengths", (None,), np.int64)
    points = _numbers(arrays, "map_points", (2, None))
    facts = header.child("map_facts").document
    if not all(isinstance(column, list) for column in facts.values()):
        header.fail("map_facts", "an object of lists")
    for name in arrays:
        if name.startswith(_FACT):
            facts[name.removeprefix(_FACT)] = _numbers(arrays, name, arrays[name].shape)
    return ProbabilityMaps(lengths, points[0], points[1], facts)


def _numbers(
    arrays: Arrays, name: str, shape: tuple[int | None, ...], kind: type[np.generic] = np.float64
) -> npt.NDArray[Any]:
    """A finite tensor of this type and shape, where None means any size."""
    array = arrays[name]
    fits = len(shape) == array.ndim and all(
        wanted in (None, size) for wanted, size in zip(shape, array.shape, strict=True)
    )
    if array.dtype != kind or not fits or not np.isfinite(array).all():
        expected = ", ".join(str(size or "…") for size in shape)
        raise InputError(
            f"{name} should be finite {np.dtype(kind)} [{expected}], got {array.dtype} "
            f"{list(array.shape)}"
        )
    return array


def _maps_of_schema_1(header: JsonReader) -> list[MapJson | None]:
    """The maps of a calibrated bank; the first banks have no such key."""
    if "probabilities" not in header:
        return []
    found = header.document["probabilities"]
    if not isinstance(found, list) or not all(item is None or type(item) is dict for item in found):
        header.fail("probabilities", "a list of objects and nulls")
    return found
