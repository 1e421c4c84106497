"""The class bank: what the tuned prompts became, one row a tag, in one safetensors file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import BundleError, InputError
from taidpt.runtime.files import write_atomically
from taidpt.runtime.json_reader import JsonReader, parse_object

__all__ = [
    "BANK_SCHEMA",
    "DEFAULT_SCALE",
    "ClassBank",
    "FloatArray",
    "Threshold",
    "is_bank",
    "map_local_embeddings",
    "read_bank_names",
]

FloatArray = npt.NDArray[np.float32]

BANK_SCHEMA = 1
BANK_KIND = "taidpt-bank"
DEFAULT_SCALE = 4.0  # the paper's fixed factor on a similarity
_UNIT_TOLERANCE = 1e-3
_MAX_HEADER = 64 << 20


@dataclass(frozen=True)
class Threshold:
    """Where a tag switches.

    Attributes:
        on: a score of at least this turns the tag on.
        off: a score below this turns it off again, at most `on`.
        source: where the numbers come from: "default", "from texts", "calibrated", ….
    """

    on: float
    off: float
    source: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.on) and math.isfinite(self.off)):
            raise InputError(f"a threshold must be finite, got on {self.on} and off {self.off}")
        if self.off > self.on:
            raise InputError(
                f"a threshold's off must not exceed its on, got {self.off} > {self.on}"
            )

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"on": self.on, "off": self.off, "source": self.source}

    @classmethod
    def from_json(cls, reader: JsonReader) -> Threshold:
        """From a JSON object; BundleError when a key is missing or wrong."""
        on, off, source = reader.number("on"), reader.number("off"), reader.string("source")
        if off > on:
            reader.fail("off", f"at most the on threshold {on:g}")
        return cls(on, off, source)


@dataclass(frozen=True, eq=False)
class ClassBank:
    """Class embeddings of C tags in a joint space of D dimensions.

    Attributes:
        names: C distinct tag names.
        global_embeddings: unit rows for the global feature, float32 [C, D].
        local_embeddings: unit rows for the patch features, float32 [C, D].
        scale: factor on each tag's similarity, float32 [C].
        bias: added after the scale, float32 [C].
        value_embeddings: second rows of the local head, float32 [C, D], any length; or None.
        thresholds: C thresholds, or none at all.
        metadata: free JSON about where the bank comes from (model, weights' hash, …).
    """

    names: tuple[str, ...]
    global_embeddings: FloatArray
    local_embeddings: FloatArray
    scale: FloatArray
    bias: FloatArray
    value_embeddings: FloatArray | None = None
    thresholds: tuple[Threshold, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_names(self.names)
        C = len(self.names)
        D = self.global_embeddings.shape[-1] if self.global_embeddings.ndim else 0
        for name, rows in self._matrices().items():
            _check_array(name, rows, (C, D), unit=name != "value_embeddings")
        _check_array("scale", self.scale, (C,))
        _check_array("bias", self.bias, (C,))
        if len(self.thresholds) not in (0, C):
            raise InputError(f"a bank of {C} tags has {len(self.thresholds)} thresholds")

    @classmethod
    def from_rows(
        cls,
        names: tuple[str, ...],
        global_embeddings: FloatArray,
        local_embeddings: FloatArray,
        **others: Any,
    ) -> ClassBank:
        """A bank with the default scale 4 and bias 0 where `others` gives none."""
        C = len(names)
        others.setdefault("scale", np.full(C, DEFAULT_SCALE, np.float32))
        others.setdefault("bias", np.zeros(C, np.float32))
        return cls(names, global_embeddings, local_embeddings, **others)

    def __repr__(self) -> str:
        return f"ClassBank({len(self.names)} tags, dim {self.dim}: {_some(self.names)})"

    @property
    def dim(self) -> int:
        """D, the size of the joint space."""
        return int(self.global_embeddings.shape[1])

    def save(self, path: str | Path) -> None:
        """Write the bank as one safetensors file, by temporary and rename."""
        from safetensors.numpy import save

        arrays = {**self._matrices(), "scale": self.scale, "bias": self.bias}
        plain = {key: np.ascontiguousarray(value) for key, value in arrays.items()}
        write_atomically(Path(path), save(plain, metadata={"taidpt": self._header()}))

    @classmethod
    def load(cls, path: str | Path) -> ClassBank:
        """Read a bank that `save` wrote.

        Raises:
            InputError: there is no such file.
            BundleError: it is damaged, newer, or not a bank.
        """
        path = Path(path)
        header = _read_header(path)
        arrays = _read_arrays(path)
        try:
            return cls(
                names=header.strings("names"),
                global_embeddings=arrays["global_embeddings"],
                local_embeddings=arrays["local_embeddings"],
                scale=arrays["scale"],
                bias=arrays["bias"],
                value_embeddings=arrays.get("value_embeddings"),
                thresholds=tuple(map(Threshold.from_json, header.children("thresholds"))),
                metadata=header.child("metadata").document,
            )
        except KeyError as error:
            raise BundleError(f"{path}: the bank has no tensor {error}") from None
        except InputError as error:
            raise BundleError(f"{path}: {error}") from None

    def _matrices(self) -> dict[str, FloatArray]:
        rows = {
            "global_embeddings": self.global_embeddings,
            "local_embeddings": self.local_embeddings,
        }
        if self.value_embeddings is not None:
            rows["value_embeddings"] = self.value_embeddings
        return rows

    def _header(self) -> str:
        document = {
            "kind": BANK_KIND,
            "schema": BANK_SCHEMA,
            "names": list(self.names),
            "thresholds": [threshold.to_json() for threshold in self.thresholds],
            "metadata": dict(self.metadata),
        }
        return json.dumps(document, ensure_ascii=False, allow_nan=False)


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


def _check_names(names: tuple[str, ...]) -> None:
    if not names:
        raise InputError("a bank needs at least one tag, got none")
    if any(not name.strip() for name in names):
        raise InputError("a bank's tag names must not be empty")
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InputError(f"a bank's tag names must differ, these occur twice: {_some(twice)}")


def _check_array(
    name: str, array: npt.NDArray[Any], shape: tuple[int, ...], unit: bool = False
) -> None:
    if array.dtype != np.float32 or array.shape != shape or 0 in shape:
        raise InputError(
            f"{name} should be float32 {list(shape)}, got {array.dtype} {list(array.shape)}"
        )
    if not np.isfinite(array).all():
        raise InputError(f"{name} holds values that are not finite")
    if unit and np.abs(np.linalg.norm(array, axis=1) - 1).max() > _UNIT_TOLERANCE:
        raise InputError(f"the rows of {name} should have length 1")


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


def _some(names: list[str] | tuple[str, ...], limit: int = 5) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown}, … ({len(names)} in all)"
