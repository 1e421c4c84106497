"""The work behind `taidpt calibrate`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.calibration.statistics.estimator import Calibration, calibrate
from taidpt.calibration.table import print_table, print_text_table
from taidpt.calibration.targets import BankTarget, Target, learned, open_target
from taidpt.label_file import LabelFile
from taidpt.progress import show_elapsed
from taidpt.runtime.bank.bank_file import is_bank
from taidpt.runtime.errors import InputError, TaidptError
from taidpt.runtime.storage.outputs import refuse_unwritable, write_json
from taidpt.score_file import ScoreFile
from taidpt.transform_choice import ScoreTransform, choose_transform

__all__ = ["CalibrateJob", "job_from_options", "run_calibrate"]

Floats = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int8]

_AUTO = "auto"  # of --score-transform


@dataclass(frozen=True)
class CalibrateJob:
    """Everything that one `taidpt calibrate` was asked to do; `quiet` prints no tables."""

    bundle: str | None = None
    bank: str | None = None
    sources: tuple[str, ...] = ()
    scores: str | None = None
    texts: str | None = None
    labels: str | None = None
    judge: bool = False
    dry_run: bool = False
    json_path: str | None = None
    every: int = 1
    max_frames: int = 5000
    merge_weight: float = 0.5
    score_transform: str = "none"
    quiet: bool = False


@dataclass(frozen=True, eq=False)
class _Input:
    """Scores and names of C tags; maybe the truth, a few labels, and a broken source's error."""

    scores: Floats
    names: tuple[str, ...]
    targets: Targets | None
    labels: Targets | None
    effective_frames: float | None = None
    problem: InputError | None = None


def job_from_options(bundle: str | None, options: Mapping[str, Any]) -> CalibrateJob:
    """The job of a command line.

    Raises:
        InputError: not exactly one of frames, texts and a matrix of scores, or options that need
            another of them.
    """
    job = CalibrateJob(bundle=bundle, **options)
    if job.bundle is not None and is_bank(Path(job.bundle)):
        raise InputError(
            f"{job.bundle} is a bank, which scores nothing alone: give the bundle that it is for, "
            f"`taidpt calibrate BUNDLE --bank {job.bundle} --frames SOURCE`"
        )
    if job.scores is not None and (job.bundle is not None or job.sources or job.bank or job.texts):
        raise InputError("give a bundle with --frames or --texts, or --scores, not both")
    if job.sources and job.texts:
        raise InputError("give --frames or --texts, not both: frames make captions needless")
    if job.scores is None and (job.bundle is None or not (job.sources or job.texts)):
        raise InputError(
            "nothing to calibrate: give a bundle with --frames or --texts, or --scores FILE.npz"
        )
    if job.texts and (job.labels or job.json_path):
        raise InputError("--labels and --json need frames: add --frames SOURCE")
    if job.judge and job.scores is None:
        raise InputError("--judge compares with labels; give --scores FILE.npz with targets")
    if job.score_transform == _AUTO and job.scores is None and not (job.bank and job.sources):
        raise InputError(
            "--score-transform auto takes --scores FILE.npz, or --bank FILE with a bundle, and no "
            "--texts"
        )
    places = [text if "://" in text else str(Path(text).resolve()) for text in job.sources]
    for text, place in zip(job.sources, places, strict=True):
        if places.count(place) > 1:
            raise InputError(f"--frames {text}: is given twice; give it once")
    return job


def run_calibrate(job: CalibrateJob) -> None:
    """Calibrate, print a table, and write what was asked for.

    Raises:
        TaidptError: what the parts raise.
    """
    target = None if job.bundle is None else open_target(job.bundle, job.bank)
    written = None if target is None or job.dry_run else target.file
    for path in (job.json_path, written):
        refuse_unwritable(path)
    if target is not None and job.texts:
        _from_texts_alone(job, target)
        return
    given = _from_matrix(job) if target is None else _from_frames(job, target)
    with show_elapsed(f"calibrating {len(given.names):,} tags on {len(given.scores):,} frames"):
        calibration = calibrate(given.scores, given.names, given.effective_frames)
    if given.labels is not None:
        from taidpt.calibration.statistics.few_labels import refine

        calibration = refine(calibration, given.scores, given.labels)
    if not job.quiet:
        print_table(calibration)
    if job.judge and given.targets is not None:
        _print_report(calibration, given.scores, given.targets)
    if job.json_path is not None:
        write_json(job.json_path, dataclasses.asdict(calibration))
    if target is not None and not job.dry_run:
        _write(target, calibration, job)
    if given.problem is not None:
        raise given.problem


def _write(target: Target, calibration: Calibration, job: CalibrateJob) -> None:
    found, facts = learned(calibration)
    if not found:
        raise InputError(
            f"{target.path} keeps its thresholds: these frames show no tag surely; give more "
            "frames, of different occasions, or a few labels (--labels)"
        )
    try:
        target.write(found, facts)
    except TaidptError as error:
        kept = job.json_path
        lost = f"what was learned is in {kept}" if kept else "--json FILE keeps what is learned"
        raise type(error)(f"{error}; {lost}") from None
    if not job.quiet:
        print(f"\nwrote thresholds and probability maps into {target.path}")


def _from_texts_alone(job: CalibrateJob, target: Target) -> None:
    """Thresholds and maps from captions: a first guess, as no picture was seen."""
    from taidpt.calibration.captions import tags_from_captions

    found = dict(zip(target.names, tags_from_captions(target, str(job.texts)), strict=True))
    if not job.quiet:
        print_text_table(found)
    if not job.dry_run:
        maps = {name: (one.threshold, one.probability) for name, one in found.items()}
        target.write(maps, {"frames": 0})
        if not job.quiet:
            print(f"wrote thresholds and probability maps into {target.path}")


def _from_matrix(job: CalibrateJob) -> _Input:
    matrix = ScoreFile.load(str(job.scores))
    if job.judge and (matrix.targets is None or not (matrix.targets > 0).any()):
        raise InputError(f"{job.scores}: --judge needs targets with at least one positive")
    if job.score_transform == _AUTO:
        scores = _chosen(matrix.merged(job.merge_weight), ("none", "center"), job.quiet)[0]
    else:
        scores = matrix.merged(job.merge_weight, job.score_transform)
    rows = list(map(str, range(len(scores))))
    labels = None if job.labels is None else LabelFile.read(job.labels, matrix.names).of(rows)
    return _Input(scores, matrix.names, matrix.targets, labels)


def _from_frames(job: CalibrateJob, target: Target) -> _Input:
    """Whatever can be read without the frames is read first: scoring them may take hours."""
    from taidpt.calibration.scene import refuse_unknown_frames, score_frames
    from taidpt.runtime.stream.frame_batches import open_sources

    transform = target.bundle.manifest.scoring.transform
    if job.score_transform == _AUTO and transform != "log_softmax":
        raise InputError(
            f"{target.bundle.path}: its graph has the transform {transform}, and a temperature and "
            "a bias need log_softmax; export it again with --score-transform log_softmax "
            "--swappable-bank"
        )
    labels = None if job.labels is None else LabelFile.read(job.labels, target.names)
    with contextlib.ExitStack() as stack:
        sources = open_sources(stack, target.bundle, job.sources, job.every)
        if labels is not None:
            refuse_unknown_frames(labels, sources, job.every, job.max_frames)
        scene = score_frames(stack.enter_context(target.open_tagger()), sources, job.max_frames)
    known = None if labels is None else labels.of(scene.frames)
    scores = scene.scores
    if job.score_transform == _AUTO and isinstance(target, BankTarget):
        scores, chosen = _chosen(scores, ("none",), job.quiet)
        target.use_transform(chosen)
    return _Input(scores, target.names, None, known, scene.effective_frames, scene.problem)


def _chosen(scores: Floats, kinds: tuple[str, ...], quiet: bool) -> tuple[Floats, ScoreTransform]:
    """Scores after the transform that is chosen without labels; prints what and why."""
    with show_elapsed("choosing a transform of scores"):
        transform, explained = choose_transform(scores, kinds)
    if not quiet:
        print("share of the tags' presence that scores explain after each transform, %")
        for name, value in explained.items():
            mark = "  <- chosen" if name == str(transform) else ""
            print(f"  {name:50}{100 * value:6.1f}{mark}")
        print()
    return transform(scores), transform


def _print_report(calibration: Calibration, scores: Floats, targets: Targets) -> None:
    from taidpt.judging.report import compare

    with show_elapsed("comparing with thresholds chosen with labels"):
        found = compare(scores, targets, calibration)
    print("\n" + "\n".join(found.lines()))
