"""The two sides of parity: PyTorch with open_clip's own transform, and the runtime's own path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taidpt.export.graph_io import open_session
from taidpt.runtime.bank import ClassBank
from taidpt.runtime.manifest import InputSpec, Scoring
from taidpt.runtime.preprocess import Preprocessor
from taidpt.scores import (
    SCORE_SCALE,
    global_scores,
    local_scores,
    merged_scores,
    transform_scores,
)

if TYPE_CHECKING:
    import onnx

__all__ = ["Arrays", "TorchReference", "graph_outputs"]

Arrays = dict[str, npt.NDArray[Any]]
Pixels = npt.NDArray[np.uint8]
_MATRICES = ("global_embeddings", "local_embeddings")
_BATCH = 5  # of which twelve pictures are no multiple: a graph with a frozen batch shows


@dataclass(frozen=True)
class TorchReference:
    """PyTorch in fp32 with open_clip's transform: the truth that an export must keep.

    Attributes:
        encoder: normalised pictures → raw global and patch features.
        spec: size, colours and resize, as the manifest says them.
        bank, scoring: the head.
    """

    encoder: nn.Module
    spec: InputSpec
    bank: ClassBank
    scoring: Scoring

    def outputs(self, pictures: Sequence[Pixels]) -> Arrays:
        """All outputs of the graph for pictures uint8 [H, W, 3] of any size."""
        transform = self._transform()
        images = [transform(_pil(pixels)) for pixels in pictures]
        parts = [
            self._run(torch.stack(images[start : start + _BATCH]))
            for start in range(0, len(images), _BATCH)
        ]
        return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}

    def _transform(self) -> Any:
        import open_clip

        return open_clip.image_transform(
            (self.spec.height, self.spec.width),
            is_train=False,
            mean=self.spec.mean,
            std=self.spec.std,
            interpolation=self.spec.interpolation,
        )

    @torch.no_grad()
    def _run(self, images: Tensor) -> dict[str, Tensor]:
        raw_global, raw_patches = self.encoder(images)
        global_features = F.normalize(raw_global.float(), dim=-1)
        patch_features = F.normalize(raw_patches.float(), dim=-1)
        bank, scoring = self.bank, self.scoring
        rows = {name: _tensor(getattr(bank, name)) for name in ("scale", "bias", *_MATRICES)}
        factor = rows["scale"] / SCORE_SCALE
        whole = global_scores(global_features, rows["global_embeddings"])
        local = local_scores(
            patch_features,
            rows["local_embeddings"],
            scoring.temperature,
            values=None if bank.value_embeddings is None else _tensor(bank.value_embeddings),
        )
        parts = [factor * part + rows["bias"] for part in (whole, local)]
        merged = merged_scores(parts[0], parts[1], scoring.merge_weight)
        return {
            "scores": transform_scores(merged, scoring.score_transform),
            "global_scores": parts[0],
            "local_scores": parts[1],
            "global_features": global_features,
            "patch_features": patch_features,
        }


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(array)


def _pil(pixels: Pixels) -> Any:
    from PIL import Image

    return Image.fromarray(pixels)


def graph_outputs(
    graph: onnx.ModelProto | str | Path,
    spec: InputSpec,
    pictures: Sequence[Pixels],
    bank: ClassBank | None = None,
) -> Arrays:
    """What a device computes: the runtime's preprocessing, then the graph in ONNX Runtime.

    Args:
        graph: the whole graph with its head.
        spec: of the manifest.
        pictures: uint8 RGB [H, W, 3] of any size.
        bank: fed to a graph whose bank is an input.
    """
    preprocess = Preprocessor(spec)
    session = open_session(graph)
    names = [output.name for output in session.get_outputs()]
    wanted = {value.name for value in session.get_inputs()} - {spec.name}
    fixed = {name: getattr(bank, name) for name in wanted}
    parts = []
    for start in range(0, len(pictures), _BATCH):
        frames = preprocess.batch(list(pictures[start : start + _BATCH]))
        parts.append(session.run(names, {spec.name: frames, **fixed}))
    return {
        name: np.concatenate([part[index] for part in parts]) for index, name in enumerate(names)
    }
