"""What thresholds are learned for and written into: a bundle's own tags, or a bank's file."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from taidpt.calibration.statistics.estimator import Calibration
from taidpt.runtime.bank.class_bank import ClassBank, Threshold, default_thresholds
from taidpt.runtime.bank.probability_maps import MapJson
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.bundle.manifest import MANIFEST_FILE, TagEntry
from taidpt.runtime.errors import BundleError, InputError
from taidpt.runtime.storage.atomic import hold_lock
from taidpt.runtime.tagger.active_bank import check_fit, fit_bank
from taidpt.runtime.tagger.tagger import Tagger
from taidpt.transform_choice import ScoreTransform, with_transform

__all__ = ["BankTarget", "BundleTarget", "Learned", "Target", "learned", "open_target"]

Learned = Mapping[str, tuple[Threshold, MapJson | None]]


class Target(ABC):
    """Tags, their rows, and the graph that scores frames with them.

    Attributes:
        bundle: its graph, model and scoring.
        bank: the rows of the tags, with their `names`. synonyms: of each tag.
        path: what is written into. file: the file that `write` exchanges.
    """

    bundle: Bundle
    bank: ClassBank
    synonyms: tuple[tuple[str, ...], ...]
    path: Path
    file: Path

    @property
    def names(self) -> tuple[str, ...]:
        """The tags."""
        return self.bank.names

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
        self.bundle, self.bank, self.path = bundle, bundle.bank, bundle.path
        self.synonyms = tuple(tag.synonyms for tag in bundle.manifest.tags)
        self.file = bundle.path / MANIFEST_FILE

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
            with hold_lock(self.path):
                self._write(Bundle.load(self.path), found, facts)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written: {error.strerror}") from None

    def _write(self, bundle: Bundle, found: Learned, facts: Mapping[str, Any]) -> None:
        manifest = bundle.manifest
        if self.names != manifest.names:
            raise BundleError(f"{self.path}: its tags are not those that were calibrated")
        tags = tuple(
            TagEntry(tag.name, new[0], tag.synonyms, new[1]) if new else tag
            for tag in manifest.tags
            for new in [found.get(tag.name)]
        )
        provenance = {**manifest.provenance, "calibration": dict(facts)}
        bundle.with_manifest(dataclasses.replace(manifest, tags=tags, provenance=provenance))


class BankTarget(Target):
    """A bank's file and the bundle that scores with it; the bundle stays as it is."""

    def __init__(self, bundle: Bundle, path: Path) -> None:
        """Read the bank; `bank` is without its thresholds, which may be for other scores.

        Raises:
            InputError: the bundle's bank is a constant, or the bank does not fit it.
            BundleError: the file is damaged.
        """
        self.bundle, self.path, self.file = bundle, path, path
        self._read = ClassBank.load(path)
        scoring = bundle.manifest.scoring
        self.bank = dataclasses.replace(
            self._read,
            thresholds=default_thresholds(self._read, scoring.transform),
            probabilities=(),
            metadata={**self._read.metadata, "scoring": dataclasses.asdict(scoring)},
            background=bundle.bank.background,
        )
        fit_bank(self.bank, bundle, str(path))
        self.synonyms = ((),) * len(self.bank.names)

    @property
    def thresholds(self) -> Sequence[Threshold]:
        """The bank's, where they are for the bundle's scores; the log says where not."""
        return check_fit(self._read, self.bundle, str(self.path)).thresholds

    def use_transform(self, transform: ScoreTransform) -> None:
        """Put the temperature and bias of a log_softmax into the rows that `write` stores."""
        self.bank = with_transform(self.bank, transform)

    def open_tagger(self) -> Tagger:
        """The bundle's tagger with this bank."""
        tagger = Tagger.load(self.bundle.path)
        tagger.use_bank(self.bank)
        return tagger

    def write(self, found: Learned, facts: Mapping[str, Any]) -> None:
        """Exchange the file for one with the same rows."""
        if not ClassBank.load(self.path).has_rows_of(self._read):
            raise BundleError(
                f"{self.path}: was replaced while it was calibrated; calibrate it again"
            )
        before = check_fit(self._read, self.bundle, str(self.path))
        maps = before.probabilities or [None] * len(self.names)
        kept = dict(zip(self.names, zip(before.thresholds, maps, strict=True), strict=True))
        after = [found.get(name, kept[name]) for name in self.names]
        calibrated = dataclasses.replace(
            self.bank,
            thresholds=[threshold for threshold, _ in after],
            probabilities=[probability for _, probability in after],
            metadata={**self.bank.metadata, "calibration": dict(facts)},
        )
        calibrated.save(self.path)


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
        tag.name: (Threshold(tag.on, tag.off, "calibrated"), tag.probability_map())
        for tag in calibration.tags
        if tag.learned
    }
    worth = round(calibration.effective_frames, 1)
    return found, {"frames": calibration.frames, "effective_frames": worth}
