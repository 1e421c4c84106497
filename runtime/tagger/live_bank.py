"""The bank of a running tagger: look at it, add tags to it, take tags away."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

from taidpt.runtime.bank.class_bank import ClassBank, join_banks
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.optional import optional_packages
from taidpt.runtime.tagger.active_bank import check_swappable

__all__ = ["LiveBank"]

# Where tags become rows: two floors up, with the text tower, and not there on every device.
_TEXT_TOWER = "taidpt.export.classes.bank_maker:bank_of_names"


class LiveBank:
    """The tags of a tagger as they are now; each change is one swap of the whole bank.

    tagger.bank.add("forklift", prompts="street.safetensors")
    tagger.bank.remove("hot dog")
    tagger.bank.current.save("site.bank")
    """

    def __init__(
        self,
        bundle: Bundle,
        current: Callable[[], ClassBank],
        change: Callable[[Callable[[ClassBank], ClassBank]], None],
    ) -> None:
        """Control the bank of a tagger.

        Args:
            bundle: the tagger's bundle.
            current: returns the tagger's bank (`Tagger.class_bank`).
            change: replaces the bank by a function of it (`Tagger.change_bank`).
        """
        self._bundle, self._current, self._change = bundle, current, change

    def __repr__(self) -> str:
        return f"LiveBank({len(self.names)} tags)"

    @property
    def names(self) -> tuple[str, ...]:
        """The tags' names, in the order of `scores`."""
        return self.current.names

    @property
    def current(self) -> ClassBank:
        """The whole bank, with its thresholds."""
        return self._current()

    def add(
        self,
        names: str | Sequence[str],
        prompts: str | Path,
        pretrained: str | None = None,
    ) -> None:
        """Add tags by their names; needs a text tower, so PyTorch and the model's weights.

        Args:
            names: one name or several; the text tower is loaded once a call.
            prompts: a prompts file whose contexts the names are put into, or "templates".
            pretrained: the weights, where they lie elsewhere than the bundle says.
        Raises:
            MissingDependencyError: PyTorch or open_clip is not installed.
            InputError: a name is there already, the prompts are of another model or have contexts
                of their own for each tag, or the bundle's bank is a constant.
        """
        wanted = (names,) if isinstance(names, str) else tuple(names)
        check_swappable(self._bundle)
        make = _find_text_tower()
        more = make(wanted, self._bundle.manifest, prompts, pretrained)
        self._change(lambda now: join_banks(now, more))

    def remove(self, *names: str) -> None:
        """Take tags away.

        Raises:
            InputError: there is no such tag, or it is the last one.
        """
        self._change(lambda now: _without(now, names))


def _without(bank: ClassBank, names: Sequence[str]) -> ClassBank:
    bank.select(names)
    return bank.select(name for name in bank.names if name not in names)


def _find_text_tower() -> Callable[..., ClassBank]:
    module, _, name = _TEXT_TOWER.partition(":")
    advice = "make a bank elsewhere (`taidpt bank`) for use_bank"
    with optional_packages("adding tags by name", "tune", advice):
        tower: Callable[..., ClassBank] = getattr(importlib.import_module(module), name)
    return tower
