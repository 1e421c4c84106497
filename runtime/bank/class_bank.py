"""The class bank: one row of class embeddings for each tag."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.bank.bank_file import BEHIND, BankParts, read_bank, write_bank
from taidpt.runtime.bank.probability_maps import MapJson, ProbabilityMaps
from taidpt.runtime.bank.thresholds import FloatArray, Threshold, Thresholds
from taidpt.runtime.errors import BundleError, InputError

__all__ = [
    "DEFAULT_SCALE",
    "ClassBank",
    "FloatArray",
    "Threshold",
    "default_thresholds",
    "join_banks",
]

DEFAULT_SCALE = 4.0  # the paper's fixed factor on a similarity
# A row that went through fp16 and back has a length within 5e-4 of 1; rows that were never
# normalised are far off.
_UNIT_TOLERANCE = 1e-3
# Default thresholds switch at a cosine of 0.25, or, for scores that are relative to the picture's
# mean over tags, 0.1 above it: CLIP's cosines of texts and pictures that fit lie around there. A
# tag switches off slightly lower, so that it does not flicker.
_DEFAULT_ON, _DEFAULT_OFF = 0.25, 0.24
_DEFAULT_RELATIVE_ON, _DEFAULT_RELATIVE_OFF = 0.1, 0.08


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
        thresholds: C thresholds, or none at all; held as `Thresholds`.
        probabilities: C maps from score to probability as in the manifest, each None until
            calibrated; none at all makes each None. Held as `ProbabilityMaps`.
        metadata: free JSON about the bank's origin (model, hash of the weights, …).
        background: rows of tags that compete in the score transform and have no score, or None.
    """

    names: tuple[str, ...]
    global_embeddings: FloatArray
    local_embeddings: FloatArray
    scale: FloatArray
    bias: FloatArray
    value_embeddings: FloatArray | None = None
    thresholds: Sequence[Threshold] = ()
    probabilities: Sequence[MapJson | None] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    background: ClassBank | None = None

    def __post_init__(self) -> None:
        _check_names(self.names)
        C = len(self.names)
        D = self.global_embeddings.shape[-1] if self.global_embeddings.ndim else 0
        for name, rows in self.matrices().items():
            _check_array(name, rows, (C, D), unit=name != "value_embeddings")
        _check_array("scale", self.scale, (C,))
        _check_array("bias", self.bias, (C,))
        for what in ("thresholds", "probabilities"):
            if len(getattr(self, what)) not in (0, C):
                raise InputError(f"a bank of {C} tags has {len(getattr(self, what))} {what}")
        behind = self.background
        if behind is not None and (behind.dim != D or self.value_embeddings is not None):
            raise InputError(
                f"{self!r}: background tags need rows of {D} dimensions, got {behind.dim}, and a "
                "bank without value embeddings (DualCoOp)"
            )
        maps = ProbabilityMaps.of(self.probabilities or (None,) * C)
        object.__setattr__(self, "thresholds", Thresholds.of(self.thresholds))
        object.__setattr__(self, "probabilities", maps)

    @classmethod
    def from_rows(
        cls,
        names: tuple[str, ...],
        global_embeddings: FloatArray,
        local_embeddings: FloatArray,
        **fields: Any,
    ) -> ClassBank:
        """A bank with scale 4 and bias 0, unless `fields` has other values for them."""
        C = len(names)
        fields.setdefault("scale", np.full(C, DEFAULT_SCALE, np.float32))
        fields.setdefault("bias", np.zeros(C, np.float32))
        return cls(names, global_embeddings, local_embeddings, **fields)

    def __repr__(self) -> str:
        return f"ClassBank({len(self.names)} tags, dim {self.dim}: {_some(self.names)})"

    @property
    def dim(self) -> int:
        """D, the size of the joint space."""
        return int(self.global_embeddings.shape[1])

    def save(self, path: str | Path) -> None:
        """Write the bank as one safetensors file, by temporary and rename.

        Raises:
            InputError: the file cannot be written.
        """
        arrays, metadata = self._arrays(), dict(self.metadata)
        if self.background is not None:
            metadata["background"] = list(self.background.names)
            arrays |= {BEHIND + name: row for name, row in self.background._arrays().items()}
        thresholds, maps = Thresholds.of(self.thresholds), ProbabilityMaps.of(self.probabilities)
        write_bank(BankParts(self.names, arrays, thresholds, maps, metadata), Path(path))

    @classmethod
    def load(cls, path: str | Path) -> ClassBank:
        """Read a bank that `save` wrote.

        Raises:
            InputError: there is no such file.
            BundleError: the file is damaged, newer, or not a bank.
        """
        parts = read_bank(Path(path))
        arrays: dict[str, Any] = dict(parts.arrays)
        metadata = dict(parts.metadata)
        behind = {
            name.removeprefix(BEHIND): arrays.pop(name)
            for name in parts.arrays
            if name.startswith(BEHIND)
        }
        nouns = metadata.pop("background", ()) if behind else ()
        nouns = nouns if isinstance(nouns, list) else ()
        try:
            return cls(
                names=parts.names,
                **arrays,
                thresholds=parts.thresholds,
                probabilities=parts.probabilities,
                metadata=metadata,
                background=cls(tuple(map(str, nouns)), **behind) if behind else None,
            )
        except InputError as error:
            raise BundleError(f"{path}: {error}") from None

    def without(self, names: Collection[str]) -> ClassBank:
        """A bank of all tags but these.

        Raises:
            InputError: the bank has no such tag.
        """
        self.select(names)
        return self.select(name for name in self.names if name not in names)

    def select(self, names: Iterable[str]) -> ClassBank:
        """A bank of some of the tags, in the order given.

        Raises:
            InputError: the bank has no such tag.
        """
        wanted = tuple(names)
        index_of = {name: index for index, name in enumerate(self.names)}
        missing = [name for name in wanted if name not in index_of]
        if missing:
            raise InputError(f"the bank has no tag {missing[0]!r}; its tags: {_some(self.names)}")
        rows = np.array([index_of[name] for name in wanted], np.int64)
        thresholds = Thresholds.of(self.thresholds)
        values = self.value_embeddings
        return replace(
            self,
            names=wanted,
            global_embeddings=self.global_embeddings[rows],
            local_embeddings=self.local_embeddings[rows],
            scale=self.scale[rows],
            bias=self.bias[rows],
            value_embeddings=None if values is None else values[rows],
            thresholds=thresholds.take(rows) if thresholds else (),
            probabilities=ProbabilityMaps.of(self.probabilities).take(rows),
        )

    def with_thresholds_for(self, transform: str) -> ClassBank:
        """The bank itself where its thresholds are for scores of this transform.

        Otherwise the bank with default thresholds and no probability maps.

        Args:
            transform: "none", "center" or "log_softmax".
        """
        if self.thresholds and self.score_transform == transform:
            return self
        metadata = dict(self.metadata)
        if isinstance(metadata.get("scoring"), Mapping):
            metadata["scoring"] = {**metadata["scoring"], "transform": transform}
        thresholds = default_thresholds(self, transform)
        return replace(self, thresholds=thresholds, probabilities=(), metadata=metadata)

    @property
    def score_transform(self) -> str:
        """The transform of the scores that the thresholds are for; "none" if nothing says so."""
        scoring = self.metadata.get("scoring")
        return str(scoring.get("transform", "none")) if isinstance(scoring, Mapping) else "none"

    def competing(self) -> dict[str, FloatArray]:
        """All arrays by name, the background's rows behind those of the tags, [C + B, …]."""
        arrays = self._arrays()
        if self.background is None:
            return arrays
        behind = self.background._arrays()
        return {name: np.concatenate([rows, behind[name]]) for name, rows in arrays.items()}

    def has_rows_of(self, other: ClassBank) -> bool:
        """Whether both banks have the same tags and rows; thresholds and maps may differ."""
        rows, others = self._arrays(), other._arrays()
        return (self.names, rows.keys()) == (other.names, others.keys()) and all(
            np.array_equal(rows[name], others[name]) for name in rows
        )

    def _arrays(self) -> dict[str, FloatArray]:
        return {**self.matrices(), "scale": self.scale, "bias": self.bias}

    def matrices(self) -> dict[str, FloatArray]:
        """The matrices [C, D] by name."""
        rows = {
            "global_embeddings": self.global_embeddings,
            "local_embeddings": self.local_embeddings,
        }
        if self.value_embeddings is not None:
            rows["value_embeddings"] = self.value_embeddings
        return rows


def join_banks(first: ClassBank, second: ClassBank) -> ClassBank:
    """The tags of two banks in one; the first bank's metadata.

    Raises:
        InputError: they share a tag, or differ in dimension or in having thresholds or values.
    """
    banks = (first, second)
    if first.dim != second.dim:
        raise InputError(f"banks of {first.dim} and {second.dim} dimensions cannot be joined")
    shared = sorted(set(first.names) & set(second.names))
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
    return replace(
        first,
        names=first.names + second.names,
        thresholds=Thresholds.of(first.thresholds).join(Thresholds.of(second.thresholds)),
        probabilities=ProbabilityMaps.of(first.probabilities).join(
            ProbabilityMaps.of(second.probabilities)
        ),
        **arrays,
    )


def default_thresholds(bank: ClassBank, transform: str) -> tuple[Threshold, ...]:
    """Thresholds of tags that were neither tuned nor calibrated: the same cosine for each.

    Args:
        transform: of the scores that the thresholds are for.
    """
    step = bank.scale.astype(float)
    if transform == "none":
        on, off = bank.bias + _DEFAULT_ON * step, bank.bias + _DEFAULT_OFF * step
    else:
        mean = -math.log(len(bank.names)) if transform == "log_softmax" else 0.0
        on, off = mean + _DEFAULT_RELATIVE_ON * step, mean + _DEFAULT_RELATIVE_OFF * step
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
    # one pass without a copy: a value that is not finite makes its row's sum not finite
    squares = np.einsum("...d,...d->...", array, array)
    if not np.isfinite(squares).all():
        raise InputError(f"{name} holds values that are not finite")
    if unit and np.abs(np.sqrt(squares) - 1).max() > _UNIT_TOLERANCE:
        raise InputError(f"the rows of {name} should have length 1")


def _some(names: Sequence[str], limit: int = 5) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown}, … ({len(names)} in all)"
