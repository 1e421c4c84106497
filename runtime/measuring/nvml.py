"""What NVIDIA cards draw, asked through NVML where its Python package and a driver answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Card", "find_cards"]


@dataclass(frozen=True)
class Card:
    """One card that tells its power; `watts` asks it.

    Attributes:
        name: "GPU 0" and so on, in NVML's order.
        nvml: the package `pynvml`.
        handle: NVML's, of this card.
    """

    name: str
    nvml: Any
    handle: Any

    def watts(self) -> float:
        """What the whole card draws now; on most an average over the last second or less.

        Raises:
            OSError: NVML has no answer.
        """
        try:
            return int(self.nvml.nvmlDeviceGetPowerUsage(self.handle)) / 1e3
        except Exception as error:  # NVML's own errors, and a binding that misses a function
            raise OSError(f"{self.name}: NVML has no power: {error}") from None


def find_cards() -> list[Card]:
    """The cards that tell; none without the package `nvidia-ml-py`, a driver or such a card."""
    try:
        import pynvml

        pynvml.nvmlInit()
        count = int(pynvml.nvmlDeviceGetCount())
    except Exception:  # not installed, no driver, another version of it: no power is shown
        return []
    return [card for index in range(count) if (card := _card(pynvml, index)) is not None]


def _card(nvml: Any, index: int) -> Card | None:
    """A card, if it has an answer now."""
    try:
        card = Card(f"GPU {index}", nvml, nvml.nvmlDeviceGetHandleByIndex(index))
        card.watts()
    except Exception:  # as above
        return None
    return card
