"""The class bank: what the tuned prompts became, one row a tag, in one safetensors file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import InputError
from taidpt.runtime.files import write_atomically
from taidpt.runtime.json_reader import JsonReader

__all__ = [
    "BANK_KIND",
    "BANK_SCHEMA",
    "DEFAULT_SCALE",
    "ClassBank",
    "FloatArray",
    "Threshold",
    "default_thresholds",
    "join_banks",
]

FloatArray = npt.NDArray[np.float32]

BANK_SCHEMA = 1
BANK_KIND = "taidpt-bank"
DEFAULT_SCALE = 4.0  # the paper's fixed factor on a similarity
_UNIT_TOLERANCE = 1e-3


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
        probabilities: C maps from score to probability as in the manifest, each None until
            calibrated; or none at all.
        metadata: free JSON about where the bank comes from (model, weights' hash, …).
    """

    names: tuple[str, ...]
    global_embeddings: FloatArray
    local_embeddings: FloatArray
    scale: FloatArray
    bias: FloatArray
    value_embeddings: FloatArray | None = None
    thresholds: tuple[Threshold, ...] = ()
    probabilities: tuple[Mapping[str, Any] | None, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_names(self.names)
        C = len(self.names)
        D = self.global_embeddings.shape[-1] if self.global_embeddings.ndim else 0
        for name, rows in self._matrices().items():
            _check_array(name, rows, (C, D), unit=name != "value_embeddings")
        _check_array("scale", self.scale, (C,))
        _check_array("bias", self.bias, (C,))
        for what in ("thresholds", "probabilities"):
            if len(getattr(self, what)) not in (0, C):
                raise InputError(f"a bank of {C} tags has {len(getattr(self, what))} {what}")

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
        from taidpt.runtime.bank_file import read_bank

        return read_bank(Path(path))

    def select(self, names: Iterable[str]) -> ClassBank:
        """A bank of some of the tags, in the order given.

        Raises:
            InputError: the bank has no such tag.
        """
        wanted = tuple(names)
        place = {name: index for index, name in enumerate(self.names)}
        missing = [name for name in wanted if name not in place]
        if missing:
            raise InputError(f"the bank has no tag {missing[0]!r}; its tags: {_some(self.names)}")
        rows = [place[name] for name in wanted]
        values = self.value_embeddings
        return replace(
            self,
            names=wanted,
            global_embeddings=self.global_embeddings[rows],
            local_embeddings=self.local_embeddings[rows],
            scale=self.scale[rows],
            bias=self.bias[rows],
            value_embeddings=None if values is None else values[rows],
            thresholds=tuple(self.thresholds[row] for row in rows) if self.thresholds else (),
            probabilities=(
                tuple(self.probabilities[row] for row in rows) if self.probabilities else ()
            ),
        )

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
            "probabilities": [_plain(document) for document in self.probabilities] or None,
            "metadata": dict(self.metadata),
        }
        return json.dumps(document, ensure_ascii=False, allow_nan=False)


def join_banks(first: ClassBank, second: ClassBank) -> ClassBank:
    """The tags of two banks in one; the first bank's metadata.

    Raises:
        InputError: they share a tag, or differ in dimension or in having thresholds or values.
    """
    banks = (first, second)
    if first.dim != second.dim:
        raise InputError(f"banks of {first.dim} and {second.dim} dimensions cannot be joined")
    shared = [name for name in second.names if name in set(first.names)]
    if shared:
        raise InputError(f"the bank has the tag {_some(shared)} already; remove it first")
    if len({bank.value_embeddings is None for bank in banks}) > 1:
        raise InputError("one of two banks has value embeddings: they cannot be joined")
    if len({not bank.thresholds for bank in banks}) > 1:
        raise InputError("one of two banks has no thresholds: they cannot be joined")
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(bank, name) for bank in banks])
        for name in ("global_embeddings", "local_embeddings", "scale", "bias", "value_embeddings")
        if getattr(first, name) is not None
    }
    maps: tuple[Mapping[str, Any] | None, ...] = ()
    if first.probabilities or second.probabilities:
        maps = sum((bank.probabilities or (None,) * len(bank.names) for bank in banks), maps)
    return replace(
        first,
        names=first.names + second.names,
        thresholds=first.thresholds + second.thresholds,
        probabilities=maps,
        **arrays,
    )


def default_thresholds(bank: ClassBank, transform: str) -> tuple[Threshold, ...]:
    """A start where nothing better is known: a cosine of 0.25, or 0.1 above the picture's mean."""
    step = bank.scale.astype(float)
    if transform == "none":
        on, off = bank.bias + 0.25 * step, bank.bias + 0.24 * step
    else:
        even = -math.log(len(bank.names)) if transform == "log_softmax" else 0.0
        on, off = even + 0.1 * step, even + 0.08 * step
    return tuple(
        Threshold(float(high), float(low), "default") for high, low in zip(on, off, strict=True)
    )


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
    # one pass without a copy: what is not finite makes a sum that is not
    squares = np.einsum("...d,...d->...", array, array)
    if not np.isfinite(squares).all():
        raise InputError(f"{name} holds values that are not finite")
    if unit and np.abs(np.sqrt(squares) - 1).max() > _UNIT_TOLERANCE:
        raise InputError(f"the rows of {name} should have length 1")


def _plain(document: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if document is None else dict(document)


def _some(names: Sequence[str], limit: int = 5) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown}, … ({len(names)} in all)"
