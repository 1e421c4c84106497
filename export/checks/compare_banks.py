"""`taidpt bank compare`: what several banks would tag on the user's own frames.

A bundle's encoder runs once per frame; each bank scores its features.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from taidpt.export.classes.bank_job import BankRequest, open_maker
from taidpt.runtime.bank.class_bank import ClassBank, Threshold
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import InputError
from taidpt.runtime.optional import optional_packages
from taidpt.runtime.tagger.active_bank import bundle_bank, check_fit

if TYPE_CHECKING:
    from taidpt.calibration.statistics.estimator import Calibration
    from taidpt.runtime.sources.base import Frame, Source
    from taidpt.runtime.tagger.tagger import Tagger

__all__ = ["CompareJob", "Comparison", "Seen", "compare_banks"]

_SHOWN_WIDTH = 240  # pixels of a picture on the page: twenty of them stay below a megabyte
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class CompareJob:
    """Banks, and the frames to compare them on.

    Attributes:
        bundle: the encoder; its bank may be a constant.
        sources: pictures, folders, videos.
        banks: bank files.
        tags: names to make banks of, as for `BankRequest`; None makes none.
        prompts: a prompts file for these names, or None.
        texts: captions, for the choices that use them.
        pretrained: another source of the weights than the one that the bundle names.
        calibrate: set every bank's thresholds from these frames.
        every, most: use each N-th frame, and at most this many.
        keep_pictures: whether to keep small pictures for a page.
    """

    bundle: Path
    sources: tuple[str, ...]
    banks: tuple[Path, ...] = ()
    tags: str | None = None
    prompts: Path | None = None
    texts: tuple[Path, ...] = ()
    pretrained: str | None = None
    calibrate: bool = False
    every: int = 1
    most: int = 200
    keep_pictures: bool = False


@dataclass(frozen=True, eq=False)
class Seen:
    """The frames that were scored.

    Attributes:
        frames: their names.
        videos: the video of each, "" for pictures.
        pictures: small JPEGs, if `keep_pictures`.
        problem: the error of a source that ended early, to be raised after the result is shown.
    """

    frames: tuple[str, ...]
    videos: tuple[str, ...]
    pictures: tuple[bytes, ...] = ()
    problem: InputError | None = None


@dataclass(frozen=True, eq=False)
class Comparison:
    """Banks by name, and their scores of the frames, each [N, C of that bank].

    Attributes:
        calibrated: calibration of each bank on these frames; empty without `calibrate`.
    """

    seen: Seen
    banks: Mapping[str, ClassBank]
    scores: Mapping[str, Scores]
    notes: tuple[str, ...] = field(default=())
    calibrated: Mapping[str, Calibration] = field(default_factory=dict)

    def unsure(self, bank: str) -> frozenset[str]:
        """Tags for whose thresholds these frames are too few or too similar."""
        tags = self.calibrated[bank].tags if self.calibrated else ()
        return frozenset(tag.name for tag in tags if tag.sureness == "low")

    def on(self, bank: str) -> npt.NDArray[np.bool_]:
        """Which tags reach their thresholds, [N, C]."""
        thresholds = np.array([threshold.on for threshold in self.banks[bank].thresholds])
        return np.asarray(self.scores[bank] >= thresholds)

    def tags_of(self, bank: str, row: int, top: int) -> list[tuple[str, float, bool]]:
        """A frame's tags that are on, best first, then others until there are `top`."""
        scores, on = self.scores[bank][row], self.on(bank)[row]
        order = np.lexsort((-scores, ~on))
        names = self.banks[bank].names
        count = max(top, int(on.sum()))
        return [(names[i], float(scores[i]), bool(on[i])) for i in order[:count]]

    @property
    def tag_names(self) -> tuple[str, ...]:
        """All banks' tags, in order of first occurrence."""
        return tuple(dict.fromkeys(name for bank in self.banks.values() for name in bank.names))

    def to_json(self) -> dict[str, Any]:
        """Shares of frames by bank and tag, and every frame's tags that are on."""
        return {
            "schema": 1,
            "kind": "taidpt-bank-comparison",
            "frames": list(self.seen.frames),
            "banks": {
                name: {
                    "thresholds": sorted({threshold.source for threshold in bank.thresholds}),
                    "share_on": dict(
                        zip(bank.names, self.on(name).mean(axis=0).tolist(), strict=True)
                    ),
                    **self._sureness(name),
                    "on": [
                        [bank.names[i] for i in np.flatnonzero(row).tolist()]
                        for row in self.on(name)
                    ],
                }
                for name, bank in self.banks.items()
            },
        }

    def _sureness(self, bank: str) -> dict[str, Any]:
        if not self.calibrated:
            return {}
        found = self.calibrated[bank]
        return {
            "effective_frames": round(found.effective_frames, 1),
            "sureness": {tag.name: tag.sureness for tag in found.tags},
        }


def compare_banks(job: CompareJob) -> Comparison:
    """Score the frames with every bank.

    Raises:
        MissingDependencyError: PyTorch is not installed.
        InputError: a bank does not fit the bundle, there is no bank, or there is no frame.
    """
    from taidpt.runtime.stream.frame_batches import open_sources
    from taidpt.runtime.tagger.tagger import Tagger

    if not job.banks and job.tags is None:
        raise InputError("nothing to compare: give --bank FILE, or --tags NAMES")
    with contextlib.ExitStack() as stack:
        tagger = stack.enter_context(Tagger.load(job.bundle))
        banks, notes = _collect(job, tagger)
        sources = open_sources(stack, tagger.bundle, job.sources, job.every)
        seen, scores = _score(job, tagger, banks, sources)
    if not job.calibrate:
        return Comparison(seen, banks, scores, notes)
    found = {name: _calibrate(bank, scores[name], seen.videos) for name, bank in banks.items()}
    learned = {
        name: replace(
            bank,
            thresholds=tuple(Threshold(t.on, t.off, "these frames") for t in found[name].tags),
        )
        for name, bank in banks.items()
    }
    return Comparison(seen, learned, scores, notes, found)


def _collect(job: CompareJob, tagger: Tagger) -> tuple[dict[str, ClassBank], tuple[str, ...]]:
    bundle = tagger.bundle
    banks: dict[str, ClassBank] = {}
    for path in job.banks:
        if path.name in banks:
            raise InputError(f"two banks have the name {path.name}; rename one")
        is_bundle = path.is_dir()
        banks[path.name] = bundle_bank(Bundle.load(path)) if is_bundle else ClassBank.load(path)
    notes: list[str] = []
    if job.tags is not None:
        source = job.prompts or job.bundle
        maker = open_maker(BankRequest(source, pretrained=job.pretrained, texts=job.texts))
        maker.scoring = replace(bundle.manifest.scoring, scale=maker.scoring.scale)
        from taidpt.texts.tags import TagSet

        tags = TagSet.parse(job.tags)
        banks |= {choice: maker.make(tags, choice) for choice in maker.choices}
        notes = maker.notes
    return {name: check_fit(bank, bundle, name) for name, bank in banks.items()}, tuple(notes)


def _score(
    job: CompareJob, tagger: Tagger, banks: Mapping[str, ClassBank], sources: list[Source]
) -> tuple[Seen, dict[str, Scores]]:
    from taidpt.calibration.scene import video_of
    from taidpt.runtime.stream.frame_batches import read_frames

    head = _head(tagger)
    names: list[str] = []
    pictures: list[bytes] = []
    videos: list[str] = []

    def read(group: list[Frame]) -> dict[str, Scores]:
        names.extend(map(_frame_name, group))
        videos.extend(map(video_of, group))
        if job.keep_pictures:
            pictures.extend(map(_small, group))
        outputs = tagger.tag_batch([frame.image for frame in group]).outputs
        return {name: head(outputs, bank) for name, bank in banks.items()}

    parts, problem = read_frames(sources, job.most, read)
    scores = {name: np.concatenate([part[name] for part in parts]) for name in banks}
    return Seen(tuple(names), tuple(videos), tuple(pictures), problem), scores


def _head(tagger: Tagger) -> Any:
    """The function from a batch's outputs and a bank to scores [N, C]."""
    with optional_packages("comparing banks", "export"):
        import torch
    from taidpt.scores import bank_outputs

    scoring = tagger.bundle.manifest.scoring

    def score(outputs: Mapping[str, npt.NDArray[Any]], bank: ClassBank) -> Scores:
        whole = torch.from_numpy(outputs["global_features"])
        patches = torch.from_numpy(outputs["patch_features"])
        return np.asarray(bank_outputs(bank, scoring, whole, patches)["scores"].numpy())

    return score


def _frame_name(frame: Frame) -> str:
    from taidpt.runtime.printable import clock_text

    name = Path(frame.source).name
    return name if frame.time_s is None else f"{name} {clock_text(frame.time_s)}"


def _small(frame: Frame) -> bytes:
    from taidpt.runtime.painting.drawing import jpeg, rgb_image

    return jpeg(rgb_image(frame.image), _SHOWN_WIDTH)


def _calibrate(bank: ClassBank, scores: Scores, videos: Sequence[str]) -> Calibration:
    from taidpt.runtime.optional import require_extra

    require_extra("calibrate", "--calibrate")
    from taidpt.calibration.scene import worth
    from taidpt.calibration.statistics.estimator import calibrate

    return calibrate(scores, bank.names, worth(scores.astype(np.float64), videos))
