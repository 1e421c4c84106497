"""Which layers low precision harms most, and how many of them must stay in fp32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

from taidpt.export.precision.quantise import Quantiser
from taidpt.progress import Progress

if TYPE_CHECKING:
    import onnx

__all__ = ["KeptLayer", "Quantised", "quantise_until", "rank_layers"]


@dataclass(frozen=True)
class KeptLayer:
    """A layer that stayed in fp32, and what it alone would have lost.

    Attributes:
        name: the node's.
        loss: one less the mean centred cosine of the worst output, with this layer alone in low
            precision.
    """

    name: str
    loss: float


@dataclass(frozen=True, eq=False)
class Quantised:
    """A quantised encoder and the layers that stayed in fp32 because they were too sensitive.

    `layers` counts all that could have been quantised; `holds` is whether the gate held.
    """

    model: onnx.ModelProto
    kept: tuple[KeptLayer, ...] = field(default=())
    layers: int = 0
    holds: bool = True


def rank_layers(
    quantiser: Quantiser, loss_of: Callable[[onnx.ModelProto], float], progress: Progress
) -> list[KeptLayer]:
    """Quantise each layer alone; the most harmed first."""
    progress.start("Measuring each layer alone", len(quantiser.products))
    measured = []
    for name in quantiser.products:
        measured.append(KeptLayer(name, loss_of(quantiser.quantise(only=[name]))))
        progress.advance()
    return sorted(measured, key=lambda layer: -layer.loss)


def quantise_until(
    quantiser: Quantiser,
    holds: Callable[[onnx.ModelProto], bool],
    loss_of: Callable[[onnx.ModelProto], float],
    progress: Progress,
) -> Quantised:
    """Put the most sensitive layers back into fp32 until a gate holds, and no more than needed.

    Args:
        quantiser: of the encoder.
        holds: a quantised encoder → whether the gate holds.
        loss_of: a quantised encoder → how far it is from fp32.
        progress: told about each layer.
    Returns:
        The one with the fewest layers in fp32 that holds. Layers that hold half of the weights
        may go back, at least one; where that is not enough, none holds, and that one is given.
    """
    layers = len(quantiser.products)
    model = quantiser.quantise()
    if holds(model):
        return Quantised(model, layers=layers)
    ranking = rank_layers(quantiser, loss_of, progress)
    most = max(_within_half(quantiser, ranking), 1)

    def with_kept(count: int) -> tuple[onnx.ModelProto, bool]:
        made = quantiser.quantise(kept=[layer.name for layer in ranking[:count]])
        return made, holds(made)

    fails, count = 0, 1
    model, good = with_kept(count)
    while not good and count < most:
        fails, count = count, min(count * 2, most)
        model, good = with_kept(count)
    while good and count - fails > 1:
        middle = (fails + count) // 2
        tried, holds_too = with_kept(middle)
        if holds_too:
            model, count = tried, middle
        else:
            fails = middle
    return Quantised(model, tuple(ranking[:count]), layers, good)


def _within_half(quantiser: Quantiser, ranking: list[KeptLayer]) -> int:
    """How many of the most sensitive layers hold half of all weights or less together.

    Weights are counted, not layers: depthwise convolutions are many, sensitive, and next to nothing
    of the whole.
    """
    weights = quantiser.weights
    half = sum(weights.values()) / 2
    return sum(total <= half for total in accumulate(weights[layer.name] for layer in ranking))
