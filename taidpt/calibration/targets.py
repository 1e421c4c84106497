"""What thresholds are learned for and written into: a bundle's own tags, or a bank's file."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from taidpt.calibration.statistics.estimator import Calibration
from taidpt.calibration.statistics.transform_choice import ScoreTransform, with_transform
from taidpt.runtime.bank.class_bank import ClassBank, Threshold, default_thresholds
from taidpt.runtime.bank.probability_maps import MapJson
from taidpt.runtime.bundle.bundle import MANIFEST_FILE, Bundle
from taidpt.runtime.errors import BundleError, InputError
from taidpt.runtime.storage.atomic import hold_lock
from taidpt.runtime.tagger.active_bank import check_fit, fit_bank
from taidpt.runtime.tagger.tagger import Tagger

__all__ = ["BankTarget", "BundleTarget", "Learned", "Target", "learned", "open_target"]

SOURCE = "calibrated"

Learned = Mapping[str, tuple[Threshold, MapJson | None]]


class Target(ABC):
    """Tags, their rows, and the graph that scores frames with them.

    Attributes:
        bundle: its graph, model and scoring.
        names: the tags. synonyms: of each of them.
    """

    def __init__(
        self, bundle: Bundle, names: tuple[str, ...], synonyms: tuple[tuple[str, ...], ...]
    ) -> None:
        self.bundle, self.names, self.synonyms = bundle, names, synonyms

    @property
    @abstractmethod
    def path(self) -> Path:
        """What is written into."""

    @property
    @abstractmethod
    def file(self) -> Path:
        """The file that `write` exchanges."""

    @property
    @abstractmethod
    def bank(self) -> ClassBank:
        """The rows of the tags."""

    @property
    @abstractmethod
    def thresholds(self) -> Sequence[Threshold]:
        """The tags' thresholds so far, for the bundle's scores."""

    @abstractmethod
    def open_tagger(self) -> Tagger:
        """A tagger that scores with these tags; the caller closes it."""

    @abstractmethod
    def write(self, found: Learned, facts: Mapping[str, Any]) -> None:
        """Put thresholds and maps by tag into `path`, in one step; other tags keep theirs.

        Args:
            facts: what they were learned from, kept beside them.
        Raises:
            BundleError: the tags there are others now.
            InputError: it cannot be written.
        """


class BundleTarget(Target):
    """A bundle with its own tags; what is learned goes into its manifest."""

    def __init__(self, bundle: Bundle) -> None:
        synonyms = tuple(tag.synonyms for tag in bundle.manifest.tags)
        super().__init__(bundle, bundle.names, synonyms)

    @property
    def path(self) -> Path:
        """The bundle's folder."""
        return self.bundle.path

    @property
    def file(self) -> Path:
        """The bundle's manifest."""
        return self.path / MANIFEST_FILE

    @property
    def bank(self) -> ClassBank:
        """The bundle's own bank."""
        return self.bundle.bank

    @property
    def thresholds(self) -> Sequence[Threshold]:
        """The manifest's."""
        return tuple(tag.threshold for tag in self.bundle.manifest.tags)

    def open_tagger(self) -> Tagger:
        """The bundle's tagger."""
        return Tagger.load(self.path)

    def write(self, found: Learned, facts: Mapping[str, Any]) -> None:
        """Change the manifest alone."""
        try:
            self._write(found, facts)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written: {error.strerror}") from None

    def _write(self, found: Learned, facts: Mapping[str, Any]) -> None:
        with hold_lock(self.path):
            bundle = Bundle.load(self.path)
            manifest = bundle.manifest
            if self.names != manifest.names:
                raise BundleError(f"{self.path}: its tags are not those that were calibrated")
            tags = tuple(
                dataclasses.replace(
                    entry, threshold=found[entry.name][0], probability=found[entry.name][1]
                )
                if entry.name in found
                else entry
                for entry in manifest.tags
            )
            provenance = {**manifest.provenance, "calibration": dict(facts)}
            bundle.with_manifest(dataclasses.replace(manifest, tags=tags, provenance=provenance))


class BankTarget(Target):
    """A bank's file and the bundle that scores with it; the bundle stays as it is."""

    def __init__(self, bundle: Bundle, path: Path) -> None:
        """Read the bank.

        Raises:
            InputError: the bundle's bank is a constant, or the bank does not fit it.
            BundleError: the file is damaged.
        """
        self._path = path
        self._read = ClassBank.load(path)
        self._bank = _without_thresholds(self._read, bundle)
        fit_bank(self._bank, bundle, str(path))
        super().__init__(bundle, self._bank.names, ((),) * len(self._bank.names))

    @property
    def path(self) -> Path:
        """The bank's file."""
        return self._path

    @property
    def file(self) -> Path:
        """The bank's file."""
        return self._path

    @property
    def bank(self) -> ClassBank:
        """The bank as it was read, its thresholds forgotten."""
        return self._bank

    @property
    def thresholds(self) -> Sequence[Threshold]:
        """The bank's, where they are for the bundle's scores; the log says where not."""
        return check_fit(self._read, self.bundle, str(self.path)).thresholds

    def use_transform(self, transform: ScoreTransform) -> None:
        """Put the temperature and bias of a log_softmax into the rows that `write` stores."""
        self._bank = with_transform(self._bank, transform)

    def open_tagger(self) -> Tagger:
        """The bundle's tagger with this bank."""
        tagger = Tagger.load(self.bundle.path)
        tagger.use_bank(self._bank)
        return tagger

    def write(self, found: Learned, facts: Mapping[str, Any]) -> None:
        """Exchange the file for one with the same rows."""
        if not _same_rows(ClassBank.load(self._path), self._read):
            raise BundleError(
                f"{self._path}: was replaced while it was calibrated; calibrate it again"
            )
        before = check_fit(self._read, self.bundle, str(self.path))
        kept = dict(zip(self.names, before.thresholds, strict=True))
        maps = dict(zip(self.names, before.probabilities, strict=False))
        calibrated = dataclasses.replace(
            self._bank,
            thresholds=[found[name][0] if name in found else kept[name] for name in self.names],
            probabilities=[
                found[name][1] if name in found else maps.get(name) for name in self.names
            ],
            metadata={**self._bank.metadata, "calibration": dict(facts)},
        )
        calibrated.save(self._path)


def open_target(bundle: str, bank: str | None = None) -> Target:
    """The bundle's own tags, or those of a bank's file.

    Raises:
        InputError, BundleError: one of them cannot be used, or not with the other.
    """
    opened = Bundle.load(bundle)
    return BundleTarget(opened) if bank is None else BankTarget(opened, Path(bank))


def learned(calibration: Calibration) -> tuple[Learned, dict[str, Any]]:
    """A calibration as `Target.write` takes it."""
    found = {
        tag.name: (Threshold(tag.on, tag.off, SOURCE), tag.probability_map())
        for tag in calibration.tags
        if tag.learned
    }
    worth = round(calibration.effective_frames, 1)
    return found, {"frames": calibration.frames, "effective_frames": worth}


def _without_thresholds(bank: ClassBank, bundle: Bundle) -> ClassBank:
    """The bank for the bundle's scores, whatever scores its thresholds were for."""
    return dataclasses.replace(
        bank,
        thresholds=default_thresholds(bank, bundle.manifest.scoring.transform),
        probabilities=(),
        metadata={**bank.metadata, "scoring": dataclasses.asdict(bundle.manifest.scoring)},
    )


def _same_rows(first: ClassBank, second: ClassBank) -> bool:
    names = ("global_embeddings", "local_embeddings", "scale", "bias")
    return first.names == second.names and all(
        np.array_equal(getattr(first, name), getattr(second, name)) for name in names
    )
