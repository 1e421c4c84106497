"""A class bank's file: written, and read whole, by its header alone, or with one matrix mapped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.bank.class_bank import ClassBank, FloatArray
from taidpt.runtime.bank.probability_maps import MapJson, ProbabilityMaps
from taidpt.runtime.bank.thresholds import Threshold, Thresholds
from taidpt.runtime.errors import BundleError, InputError
from taidpt.runtime.storage.json_reader import JsonReader, parse_object
from taidpt.runtime.storage.outputs import write_output
from taidpt.runtime.storage.tensor_file import TensorFile

__all__ = ["is_bank", "map_local_embeddings", "read_bank", "read_bank_names", "write_bank"]

Arrays = dict[str, npt.NDArray[Any]]

_KIND = "taidpt-bank"
_SCHEMA = 2  # in schema 1 thresholds and maps were JSON, ten times as slow to read
_FACT = "map_fact."  # begins the name of a tensor of numbers that maps carry beside their points


def write_bank(bank: ClassBank, path: Path) -> None:
    """Write a bank as one safetensors file, by temporary and rename.

    Raises:
        InputError: it cannot be written.
    """
    from safetensors.numpy import save

    thresholds = Thresholds.of(bank.thresholds)
    maps = ProbabilityMaps.of(bank.probabilities)
    numbers = {key: column for key, column in maps.facts.items() if isinstance(column, np.ndarray)}
    arrays: Arrays = {**bank.matrices(), "scale": bank.scale, "bias": bank.bias}
    if thresholds:
        arrays["thresholds"] = np.stack([thresholds.on, thresholds.off])
    if len(maps.scores):
        arrays["map_lengths"] = maps.lengths
        arrays["map_points"] = np.stack([maps.scores, maps.probabilities])
        arrays |= {_FACT + key: column for key, column in numbers.items()}
    header = {
        "kind": _KIND,
        "schema": _SCHEMA,
        "names": list(bank.names),
        "threshold_sources": list(thresholds.sources),
        "map_facts": {key: list(maps.facts[key]) for key in maps.facts if key not in numbers},
        "metadata": dict(bank.metadata),
    }
    plain = {key: np.ascontiguousarray(value) for key, value in arrays.items()}
    text = json.dumps(header, ensure_ascii=False, allow_nan=False)
    write_output(path, save(plain, metadata={"taidpt": text}))


def read_bank(path: Path) -> ClassBank:
    """Read a bank that `write_bank` wrote; its errors are those of `ClassBank.load`."""
    with TensorFile(path) as file:
        header = _header(file, path)
        arrays = file.arrays()
    try:
        return ClassBank(
            names=header.strings("names"),
            global_embeddings=arrays["global_embeddings"],
            local_embeddings=arrays["local_embeddings"],
            scale=arrays["scale"],
            bias=arrays["bias"],
            value_embeddings=arrays.get("value_embeddings"),
            thresholds=_thresholds(header, arrays),
            probabilities=_probabilities(header, arrays),
            metadata=header.child("metadata").document,
        )
    except KeyError as error:
        raise BundleError(f"{path}: the bank has no tensor {error}") from None
    except InputError as error:
        raise BundleError(f"{path}: {error}") from None


def is_bank(path: Path) -> bool:
    """Whether a file calls itself a bank; looks at its header alone."""
    try:
        with TensorFile(path) as file:
            return bool(json.loads(file.metadata("taidpt"))["kind"] == _KIND)
    except (InputError, BundleError, ValueError, KeyError, TypeError):
        return False


def read_bank_names(path: Path) -> tuple[str, ...]:
    """The tag names of a bank file, from its header alone.

    Raises:
        BundleError: the header is damaged, newer, or not a bank's.
    """
    with TensorFile(path) as file:
        return _header(file, path).strings("names")


def map_local_embeddings(path: Path) -> FloatArray:
    """The local class embeddings of a bank file, mapped: nothing is read until a row is used.

    The map keeps its content when the file is replaced, so it stays one with a running graph.

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
    """The JSON beside the tensors."""
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
    """A tensor of this type and shape, None standing for any size, of finite numbers."""
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
    """Maps of a calibrated bank; the first banks have no such key."""
    if "probabilities" not in header:
        return []
    found = header.document["probabilities"]
    if not isinstance(found, list) or not all(item is None or type(item) is dict for item in found):
        header.fail("probabilities", "a list of objects and nulls")
    return found
