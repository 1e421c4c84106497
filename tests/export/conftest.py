"""Small encoders that every export test shares: random, fast, and of the real architectures."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from taidpt.encoders.resnet import ResNetEncoder
from taidpt.encoders.vit import VitEncoder
from taidpt.export.graph.encoder import DEFAULT_OPSET, clean_encoder, write_encoder
from taidpt.export.graph.onnx_files import check_graph
from taidpt.export.parity.torch_reference import TorchReference
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.bundle.manifest import InputSpec, Scoring

if TYPE_CHECKING:
    import onnx

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
FAMILIES = ("resnet", "vit")


@pytest.fixture(scope="session", autouse=True)
def one_translation_table(shared_encoders: Path) -> Iterator[None]:
    """PyTorch exports each encoder once, and builds its table of ONNX translations once an opset.

    It parses the source of 500 functions, a fifth of the time of a small encoder's export.
    """
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    once = staticmethod(cache(ONNXRegistry.from_torchlib))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", once)
        yield


@cache
def small_encoder(family: str) -> torch.nn.Module:
    """A real architecture of open_clip in its smallest size, with random weights."""
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.transformer import VisionTransformer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if family == "resnet":
            visual: Any = ModifiedResNet((1, 1, 1, 1), 32, 4, 64, 16)
            encoder: torch.nn.Module = ResNetEncoder(visual.eval())
        else:
            visual = VisionTransformer(64, 16, 64, 2, 2, 4.0, output_dim=32)
            encoder = VitEncoder(visual.eval())
    return encoder.eval().requires_grad_(False)


def small_input() -> InputSpec:
    """Its input: 64 × 64, with OpenAI's colours."""
    return InputSpec(64, 64, MEAN, STD)


def export_encoder(
    encoder: torch.nn.Module, spec: InputSpec, opset: int = DEFAULT_OPSET
) -> onnx.ModelProto:
    """The graph of an image encoder, cleaned and checked, with its weights in memory."""
    import onnx

    with tempfile.TemporaryDirectory(prefix="taidpt-") as folder:
        path = write_encoder(encoder, spec, opset, Path(folder))
        clean_encoder(path, spec)
        model = onnx.load(path)
    check_graph(model)
    return model


def count_ops(model: onnx.ModelProto) -> dict[str, int]:
    """Number of nodes by operator; operators of a custom domain are written domain.operator."""
    names = (f"{n.domain}.{n.op_type}" if n.domain else n.op_type for n in model.graph.node)
    return dict(sorted(Counter(names).items()))


@cache
def small_graph(family: str, opset: int = 18) -> onnx.ModelProto:
    """The encoder's graph; do not change it."""
    return export_encoder(small_encoder(family), small_input(), opset)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def small_bank(classes: int = 7, dim: int = 32, values: bool = False) -> ClassBank:
    """Random unit rows, and scales and biases that differ from tag to tag."""
    generator = np.random.default_rng(classes)

    def rows() -> np.ndarray:
        matrix = generator.standard_normal((classes, dim))
        unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
        return unit.astype(np.float32)

    return ClassBank(
        names=tuple(f"tag {index}" for index in range(classes)),
        global_embeddings=rows(),
        local_embeddings=rows(),
        scale=generator.uniform(3, 5, classes).astype(np.float32),
        bias=generator.uniform(-1, 1, classes).astype(np.float32),
        value_embeddings=rows() * np.float32(3) if values else None,
    )


def small_reference(family: str, bank: ClassBank, scoring: Scoring) -> TorchReference:
    spec = InputSpec(64, 64, MEAN, STD)
    return TorchReference(small_encoder(family), spec, bank, scoring)
