"""The bank of a running tagger: read it, add tags, remove tags."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from taidpt.runtime.adapting.examples import examples_to_bank
from taidpt.runtime.adapting.similarity import Features
from taidpt.runtime.bank.class_bank import ClassBank, join_banks
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import InputError
from taidpt.runtime.optional import optional_packages
from taidpt.runtime.tagger.active_bank import check_swappable

__all__ = ["LiveBank"]

# Turns names into rows with the text tower. By name, because the runtime must not import export,
# which is not installed on every device.
_TEXT_TOWER = "taidpt.export.classes.bank_maker:bank_of_names"


class LiveBank:
    """The current tags of a tagger; each change replaces the whole bank at once.

    tagger.bank.add("forklift", prompts="street.safetensors")
    tagger.bank.add("hard hat", pictures=["hat.jpg"])  # against what the cameras show
    tagger.bank.remove("hot dog")
    tagger.bank.current.save("site.bank")
    """

    def __init__(
        self,
        bundle: Bundle,
        current: Callable[[], ClassBank],
        change: Callable[[Callable[[ClassBank], ClassBank]], None],
        look: Callable[[Sequence[Any]], Features],
        recent: Callable[[], Features | None],
    ) -> None:
        """Control the bank of a tagger.

        Args:
            bundle: the tagger's bundle.
            current: returns the tagger's bank (`Tagger.class_bank`).
            change: replaces the bank by a function of it (`Tagger.change_bank`).
            look: a run of the graph, from pictures to their features.
            recent: features of frames that streams of the tagger showed lately, None for too few.
        """
        self._bundle, self._current, self._change = bundle, current, change
        self._look, self._recent = look, recent

    def __repr__(self) -> str:
        return f"LiveBank({len(self.names)} tags)"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tags, in the order of `scores`."""
        return self.current.names

    @property
    def current(self) -> ClassBank:
        """The whole bank with its thresholds."""
        return self._current()

    def add(
        self,
        names: str | Sequence[str],
        prompts: str | Path | None = None,
        pretrained: str | None = None,
        *,
        pictures: Sequence[Any] = (),
        background: Sequence[Any] = (),
    ) -> None:
        """Add tags by name, or one tag by pictures.

        By name it needs the text tower: PyTorch and the model's weights.

        Args:
            names: one name or several; each call loads the text tower once.
            prompts: a prompts file, whose contexts are used with the names, or "templates".
            pretrained: the weights, if they are not where the bundle's manifest says.
            pictures: in place of prompts, pictures that show the tag: arrays, paths, PIL pictures.
            background: with `pictures`, frames of the scene that do not show it; without, frames
                of the last half minute of the tagger's streams.
        Raises:
            MissingDependencyError: PyTorch or open_clip is not installed.
            InputError: a name exists already, the prompts belong to another model or have a
                context for each tag of their own, several names are given with pictures, no
                background is given and no stream has run, or the bundle's bank is a constant.
        """
        check_swappable(self._bundle)
        new_names = (names,) if isinstance(names, str) else tuple(names)
        if len(pictures):
            if len(new_names) != 1 or prompts is not None:
                raise InputError("adding by pictures takes one name and pictures=[…]; no prompts")
            self.join(self.from_pictures(new_names[0], pictures, background))
            return
        if prompts is None:
            raise InputError('adding by name needs prompts: a file, or "templates"')
        make_bank = _find_text_tower()
        self.join(make_bank(new_names, self._bundle.manifest, prompts, pretrained))

    def join(self, tags: ClassBank) -> None:
        """Add the tags of a bank; InputError if a name exists already."""
        self._change(lambda bank: join_banks(bank, tags))

    def from_pictures(
        self, name: str, pictures: Sequence[Any], background: Sequence[Any] = ()
    ) -> ClassBank:
        """The bank of one tag, made of pictures; errors as of `add` and `examples_to_bank`."""
        check_swappable(self._bundle)
        scoring = self._bundle.manifest.scoring
        scene = self._look(background) if len(background) else self._recent()
        if scene is None:
            raise InputError(
                "adding by pictures compares them with the scene: let a stream of this tagger run "
                "for some seconds first, or give background=[…], frames without the tag"
            )
        shown = self._look(pictures)
        return examples_to_bank(name, shown, scene, self.current, scoring)

    def remove(self, *names: str) -> None:
        """Remove tags.

        Raises:
            InputError: there is no such tag, or none would be left.
        """
        check_swappable(self._bundle)
        self._change(lambda bank: bank.without(names))


def _find_text_tower() -> Callable[..., ClassBank]:
    module, _, name = _TEXT_TOWER.partition(":")
    advice = "make a bank elsewhere (`taidpt bank make`) for use_bank"
    with optional_packages("adding tags by name", "tune", advice):
        tower: Callable[..., ClassBank] = getattr(importlib.import_module(module), name)
    return tower
