"""What the GPU suite compares: the operator, PyTorch as one would write it, and the limit.

PyTorch's sides compute in bf16 with fp32 accumulation and keep bf16 intermediates, as ours does.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch

from taidpt.kernels.local_similarity import local_similarity

__all__ = ["Problem", "eager", "extra_memory", "graphed", "median_ms", "ours"]

TEMPERATURE = 40.0
_ROUNDS = 3


@dataclass(frozen=True)
class Problem:
    """Random patches [B, P, D] and unit class embeddings [C, D], bf16, on the GPU."""

    batch: int
    patches: int
    classes: int
    dim: int = 1024

    def tensors(self, with_gradient: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """The patches and the bank, which may want a gradient."""
        generator = torch.Generator("cuda").manual_seed(0)
        shape = (self.batch, self.patches, self.dim)
        patches = torch.randn(shape, generator=generator, device="cuda")
        bank = torch.randn(self.classes, self.dim, generator=generator, device="cuda")
        bank = torch.nn.functional.normalize(bank, dim=-1).bfloat16()
        return patches.bfloat16(), bank.requires_grad_(with_gradient)

    @property
    def flops(self) -> float:
        """Of the product of all patches with all classes."""
        return 2.0 * self.batch * self.patches * self.classes * self.dim


def ours(patches: torch.Tensor, bank: torch.Tensor) -> torch.Tensor:
    """The operator; the values are known to be finite."""
    return local_similarity(patches, bank, TEMPERATURE, finite_checked=True)


def eager(patches: torch.Tensor, bank: torch.Tensor) -> torch.Tensor:
    """As one writes it in PyTorch: [B, P, C] several times over."""
    unit = torch.nn.functional.normalize(patches, dim=-1)
    similarity = unit @ bank.T
    weights = torch.softmax(TEMPERATURE * similarity, dim=1)
    return (weights * similarity).sum(1)


def median_ms(methods: dict[str, Callable[[], object]]) -> dict[str, dict[str, float]]:
    """p20, p50, p80 of each in milliseconds; methods take turns, so that clocks drift for all."""
    from triton.testing import do_bench

    samples: dict[str, list[list[float]]] = {name: [] for name in methods}
    for _ in range(_ROUNDS):
        for name, method in methods.items():
            samples[name].append(do_bench(method, warmup=10, rep=40, quantiles=[0.2, 0.5, 0.8]))
    return {
        name: {
            label: statistics.median(sample[index] for sample in listed)
            for index, label in enumerate(("p20", "p50", "p80"))
        }
        for name, listed in samples.items()
    }


def extra_memory(method: Callable[[], object]) -> int:
    """Bytes allocated at the peak beyond what was there before; the result counts."""
    method()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = method()
    torch.cuda.synchronize()
    del result
    return torch.cuda.max_memory_allocated() - before


def graphed(method: Callable[[], object]) -> Callable[[], None]:
    """The method as one CUDA graph's replay, after a warm-up on another stream."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            method()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        method()
    return graph.replay
