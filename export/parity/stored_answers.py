"""Pictures and PyTorch's outputs for them, stored in the bundle.

With them a device without PyTorch can still compare its engine with PyTorch.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.export.parity.centred_cosine import Sides
from taidpt.export.parity.reference_pictures import Picture
from taidpt.runtime.errors import BundleError

__all__ = ["EXPECTATIONS_FILE", "StoredAnswers"]

EXPECTATIONS_FILE = "expectations.safetensors"
OUTPUTS = ("scores", "global_scores", "local_scores", "global_features", "patch_features")
# Eight pictures keep the file within a few megabytes; of camera frames beyond 3 MiB, half as many.
_STORED = 8
_LARGE = 3 << 20
_PICTURE = "picture/"


@dataclass(frozen=True, eq=False)
class StoredAnswers:
    """Pictures of full size, and PyTorch's outputs for them, a row per picture."""

    pictures: tuple[Picture, ...]
    outputs: Mapping[str, npt.NDArray[Any]]

    @classmethod
    def choose(
        cls, pictures: Sequence[Picture], outputs: Mapping[str, npt.NDArray[Any]]
    ) -> StoredAnswers:
        """A few of the generated and shipped pictures, never the user's own."""
        free = [i for i, p in enumerate(pictures) if p.name.startswith(("generated/", "heldout/"))]
        large = max(pictures[row].pixels.size for row in free) > _LARGE
        rows = free[:: max(1, -(-len(free) // (_STORED // 2 if large else _STORED)))]
        chosen = {name: outputs[name][rows] for name in OUTPUTS}
        return cls(tuple(pictures[row] for row in rows), chosen)

    @property
    def pixels(self) -> list[npt.NDArray[np.uint8]]:
        """The pictures' pixels."""
        return [picture.pixels for picture in self.pictures]

    def sides(self, candidate: str, reference: str = "PyTorch, stored in the bundle") -> Sides:
        """The names of a comparison with these answers."""
        return Sides(reference, candidate, tuple(picture.name for picture in self.pictures))

    def to_bytes(self) -> bytes:
        """As a safetensors file: pictures as PNG, patch features in fp16, whose 3e-4 is enough."""
        from safetensors.numpy import save

        arrays: dict[str, npt.NDArray[Any]] = {
            name: np.ascontiguousarray(values) for name, values in self.outputs.items()
        }
        arrays["patch_features"] = arrays["patch_features"].astype(np.float16)
        for index, picture in enumerate(self.pictures):
            arrays[f"{_PICTURE}{index:02d}/{picture.name}"] = _to_png(picture.pixels)
        return bytes(save(arrays))

    @classmethod
    def load(cls, path: Path) -> StoredAnswers:
        """Read what `to_bytes` wrote.

        Raises:
            BundleError: it is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            arrays = load_file(path)
            names = sorted(name for name in arrays if name.startswith(_PICTURE))
            pictures = tuple(
                Picture(name.split("/", 2)[2], _from_png(arrays[name])) for name in names
            )
            outputs = {name: arrays[name].astype(np.float32) for name in OUTPUTS}
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise BundleError(f"{path}: damaged ({error}); export the bundle again") from None
        if any(len(values) != len(pictures) for values in outputs.values()):
            raise BundleError(f"{path}: damaged (rows and pictures differ in number)")
        return cls(pictures, outputs)


def _to_png(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", optimize=True)
    return np.frombuffer(stream.getvalue(), np.uint8)


def _from_png(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    from PIL import Image

    with Image.open(io.BytesIO(data.tobytes()), formats=["PNG"]) as image:
        # grey is NV12, whose planes are stacked
        return np.asarray(image if image.mode == "L" else image.convert("RGB"))
