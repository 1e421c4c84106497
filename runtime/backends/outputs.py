"""Checks a graph's inputs and outputs against the manifest: neither of them is trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.bundle.manifest import TOP_OUTPUTS
from taidpt.runtime.errors import BundleError

__all__ = ["GraphForm", "TensorForm"]

# A size of a shape: a name or None where it is open; ours are N frames and C tags.
Size = int | str | None


@dataclass(frozen=True)
class TensorForm:
    """An input or output as a graph declares it."""

    dtype: str
    shape: Sequence[Size]

    def __str__(self) -> str:
        return (
            f"{self.dtype} [{', '.join('…' if size is None else str(size) for size in self.shape)}]"
        )


class GraphForm:
    """The inputs and outputs that a bundle's manifest promises."""

    def __init__(self, bundle: Bundle) -> None:
        """Read them from the manifest.

        Raises:
            BundleError: the manifest contradicts itself.
        """
        manifest = bundle.manifest
        self._bundle = bundle
        self._swappable = manifest.graph.bank == "input"
        self._tags = len(manifest.names)
        C = "C" if self._swappable else self._tags
        D, K = manifest.model.embed_dim, manifest.graph.top_k
        frame, patches = manifest.input.frame_shape, manifest.patches
        if K is not None and self._tags < K:
            raise self._error(f"the manifest says top_k {K} of {self._tags} tags")
        self.inputs = {manifest.input.name: TensorForm("uint8", ("N", *frame))}
        if self._swappable:
            rows, column = TensorForm("float32", ("C", D)), TensorForm("float32", ("C",))
            self.inputs |= {"global_embeddings": rows, "local_embeddings": rows}
            self.inputs |= {"scale": column, "bias": column}
        if set(self.inputs) != set(manifest.graph.inputs):
            named, needed = ", ".join(manifest.graph.inputs), ", ".join(self.inputs)
            raise self._error(f"the manifest lists the inputs {named}, expected {needed}")
        scores, best = TensorForm("float32", ("N", C)), TensorForm("float32", ("N", K))
        known = {
            **dict.fromkeys(("scores", "global_scores", "local_scores"), scores),
            "global_features": TensorForm("float32", ("N", *manifest.global_shape)),
            "patch_features": TensorForm("float32", ("N", patches, D)),
            TOP_OUTPUTS[0]: best,
            TOP_OUTPUTS[1]: TensorForm("integers", ("N", K)),
        }
        unknown = set(manifest.graph.outputs) - set(known)
        if unknown:
            raise self._error(f"the manifest lists an unknown output {min(unknown)!r}")
        self.outputs = {name: known[name] for name in manifest.graph.outputs}

    def check_declared(
        self, what: str, inputs: Mapping[str, TensorForm], outputs: Mapping[str, TensorForm]
    ) -> None:
        """Check what a graph or an engine declares.

        Args:
            what: "graph" or "engine", for errors.
        Raises:
            BundleError: an input or output is missing, superfluous, or of another form.
        """
        superfluous = sorted(set(inputs) - set(self.inputs))
        if superfluous:
            raise self._error(f"the {what} needs an input {superfluous[0]!r} beside those known")
        sides = ("input", self.inputs, inputs), ("output", self.outputs, outputs)
        for side, expected, declared in sides:
            for name, form in expected.items():
                if name not in declared:
                    raise self._error(f"the {what} has no {side} {name!r}")
                found = declared[name]
                if not _agrees(form, found):
                    fault = f"the {what}'s {side} {name!r} is {found}, the manifest says {form}"
                    raise self._error(fault)

    def check_outputs(
        self,
        outputs: Mapping[str, npt.NDArray[Any]],
        frames: int,
        bank: Mapping[str, npt.NDArray[Any]],
    ) -> None:
        """Check the outputs of a run: a graph may leave sizes open, or not keep to its own.

        Args:
            outputs: by name.
            frames: N, the number of frames that were run.
            bank: the inputs beside the frames.
        Raises:
            BundleError: an output has another form, or an index has no tag.
        """
        tags = len(bank["scale"]) if self._swappable else self._tags
        for name, form in self.outputs.items():
            array = outputs[name]
            tail = tuple(tags if size == "C" else size for size in form.shape[1:])
            if array.shape != (frames, *tail) or not _is_of(array.dtype, form.dtype):
                wanted = TensorForm(form.dtype, (frames, *tail))
                found = TensorForm(str(array.dtype), array.shape)
                raise self._error(f"the graph gave {name!r} as {found}, expected {wanted}")
        indices = TOP_OUTPUTS[1]
        if indices in self.outputs and frames:
            least, most = int(outputs[indices].min()), int(outputs[indices].max())
            if least < 0 or most >= tags:
                raise self._error(f"the graph gave tag {least if least < 0 else most} of {tags}")

    def _error(self, fault: str) -> BundleError:
        return BundleError(f"{self._bundle.path}: {fault}; export it again")


def _agrees(form: TensorForm, declared: TensorForm) -> bool:
    """Whether a declared form can be the expected one; its batch must be open."""
    if len(form.shape) != len(declared.shape) or not _is_of(declared.dtype, form.dtype):
        return False
    batch, *sizes = declared.shape
    return not isinstance(batch, int) and all(
        not (isinstance(wanted, int) and isinstance(size, int)) or size == wanted
        for wanted, size in zip(form.shape[1:], sizes, strict=True)
    )


def _is_of(dtype: object, wanted: str) -> bool:
    return str(dtype) in (("int64", "int32") if wanted == "integers" else (wanted,))
