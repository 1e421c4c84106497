"""Which layers lose most in low precision, and how many of them must stay in fp32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from taidpt.export.precision.quantise import Quantiser
from taidpt.progress import Progress

if TYPE_CHECKING:
    import onnx

__all__ = ["KeptLayer", "Quantised", "quantise_until", "rank_layers"]


@dataclass(frozen=True)
class KeptLayer:
    """A layer that stayed in fp32, and the loss that it alone would have caused.

    Attributes:
        name: the node's.
        loss: one minus the mean centred cosine of the worst output, with only this layer in low
            precision.
    """

    name: str
    loss: float


@dataclass(frozen=True, eq=False)
class Quantised:
    """A quantised encoder.

    Attributes:
        model: its graph.
        kept: layers that stayed in fp32 because they were too sensitive.
        layers: number of layers that could have been quantised.
        holds: whether the gate held.
    """

    model: onnx.ModelProto
    kept: tuple[KeptLayer, ...] = field(default=())
    layers: int = 0
    holds: bool = True


def rank_layers(
    quantiser: Quantiser, loss_of: Callable[[onnx.ModelProto], float], progress: Progress
) -> list[KeptLayer]:
    """Quantise each layer alone, and sort layers by their loss, largest first."""
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
        The encoder with the fewest layers in fp32 that passes. Layers with up to half of all
        weights may go back, at least the worst one; where that is not enough, `holds` is False.
    """
    layers = len(quantiser.products)
    model = quantiser.quantise()
    if holds(model):
        return Quantised(model, layers=layers)
    ranking = _within_half(quantiser, rank_layers(quantiser, loss_of, progress))
    most = len(ranking)

    def with_kept(count: int) -> tuple[onnx.ModelProto, bool]:
        quantised = quantiser.quantise(kept=[layer.name for layer in ranking[:count]])
        return quantised, holds(quantised)

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


def _within_half(quantiser: Quantiser, ranking: list[KeptLayer]) -> list[KeptLayer]:
    """The worst layer, and the next ones that have at most half of all weights together.

    Weights are counted, not layers: depthwise convolutions are many and sensitive, and have few
    weights. A layer too large is passed over, as smaller ones after it may be what is missing.
    """
    weights = quantiser.weights
    left = sum(weights.values()) / 2 - weights[ranking[0].name]
    chosen = ranking[:1]
    for layer in ranking[1:]:
        if weights[layer.name] <= left:
            left -= weights[layer.name]
            chosen.append(layer)
    return chosen
