"""The class bank: tags as rows, thresholds and probability maps as tables, one safetensors file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taidpt.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from taidpt.runtime.bank.class_bank import ClassBank as ClassBank
    from taidpt.runtime.bank.thresholds import Threshold as Threshold

__getattr__, __dir__ = lazy_names(
    __name__, {"class_bank": ("ClassBank",), "thresholds": ("Threshold",)}
)
