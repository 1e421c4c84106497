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

from taidpt.calibration.label_file import LabelFile
from taidpt.calibration.statistics.estimator import Calibration, calibrate
from taidpt.calibration.statistics.hierarchy import Hint
from taidpt.calibration.statistics.transform_choice import ScoreTransform, choose_transform
from taidpt.calibration.table import print_table, print_text_table
from taidpt.calibration.targets import BankTarget, Target, learned, open_target
from taidpt.progress import show_elapsed
from taidpt.runtime.bank.bank_file import is_bank
from taidpt.runtime.errors import InputError, TaidptError
from taidpt.runtime.storage.outputs import refuse_unwritable, write_json
from taidpt.score_file import ScoreFile

__all__ = ["CalibrateJob", "job_from_options", "run_calibrate"]

Floats = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int8]


_AUTO = "auto"  # of --score-transform


@dataclass(frozen=True)
class CalibrateJob:
    """Everything that one `taidpt calibrate` was asked to do."""

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


@dataclass(frozen=True)
class _Scale:
    """Whose scores are calibrated, and what they went through."""

    names: tuple[str, ...]
    transform: str
    merge_weight: float


@dataclass(frozen=True, eq=False)
class _Input:
    scores: Floats
    names: tuple[str, ...]
    targets: Targets | None
    hint: Hint | None
    labels: Targets | None
    effective_frames: float | None = None
    problem: InputError | None = None


def job_from_options(bundle: str | None, options: Mapping[str, Any]) -> CalibrateJob:
    """The job of a command line.

    Raises:
        InputError: neither a bundle with frames nor a matrix of scores, or both.
    """
    job = CalibrateJob(bundle=bundle, **options)
    if job.bundle is not None and is_bank(Path(job.bundle)):
        raise InputError(
            f"{job.bundle} is a bank, which scores nothing alone: give the bundle that it is for, "
            f"`taidpt calibrate BUNDLE --bank {job.bundle} --frames SOURCE`"
        )
    if job.scores is not None and (job.bundle is not None or job.sources or job.bank):
        raise InputError("give a bundle with --frames, or --scores, not both")
    if job.scores is None and (job.bundle is None or not (job.sources or job.texts)):
        raise InputError(
            "nothing to calibrate: give a bundle with --frames or --texts, or --scores FILE.npz"
        )
    if job.scores is None and not job.sources and (job.labels or job.json_path):
        raise InputError("--labels and --json need frames: add --frames SOURCE")
    if job.judge and job.scores is None:
        raise InputError("--judge compares with labels; give --scores FILE.npz with targets")
    if job.score_transform == _AUTO and (job.texts or (job.scores is None and job.bank is None)):
        raise InputError(
            "--score-transform auto takes --scores FILE.npz, or --bank FILE with a bundle, and no "
            "--texts"
        )
    _refuse_twice(job.sources)
    return job


def run_calibrate(job: CalibrateJob) -> None:
    """Calibrate, print a table, and write what was asked for.

    Raises:
        TaidptError: what the parts raise.
    """
    target = None if job.bundle is None else open_target(job.bundle, job.bank)
    if target is not None and not job.sources:
        _from_texts_alone(job, target)
        return
    _refuse_unwritable(job, target)
    given = _from_matrix(job) if target is None else _from_frames(job, target)
    with show_elapsed(f"calibrating {len(given.names):,} tags on {len(given.scores):,} frames"):
        calibration = calibrate(given.scores, given.names, given.hint, given.effective_frames)
    if given.labels is not None:
        from taidpt.calibration.statistics.few_labels import refine

        calibration = refine(calibration, given.scores, given.labels)
    if job.json_path != "-":
        print_table(calibration)
    if job.judge:
        _print_report(calibration, given)
    if job.json_path is not None:
        _write_json(job.json_path, calibration)
    if target is not None and not job.dry_run:
        _refuse_unlearned(target, calibration)
        _write(target, calibration, job.json_path)
    if given.problem is not None:
        raise given.problem


def _refuse_twice(sources: tuple[str, ...]) -> None:
    """Frames that come twice would count as two occasions."""
    places = [text if "://" in text else str(Path(text).resolve()) for text in sources]
    for index, place in enumerate(places):
        if place in places[:index]:
            raise InputError(f"--frames {sources[index]}: is given twice; give it once")


def _refuse_unwritable(job: CalibrateJob, target: Target | None) -> None:
    """Before frames are scored."""
    if job.json_path is not None:
        refuse_unwritable(job.json_path)
    if target is not None and not job.dry_run:
        refuse_unwritable(target.file)


def _refuse_unlearned(target: Target, calibration: Calibration) -> None:
    if not any(tag.learned for tag in calibration.tags):
        raise InputError(
            f"{target.path} keeps its thresholds: these frames show no tag surely; give more "
            "frames, of different occasions, or a few labels (--labels)"
        )


def _write(target: Target, calibration: Calibration, kept: str | None) -> None:
    try:
        target.write(*learned(calibration))
    except TaidptError as error:
        lost = f"what was learned is in {kept}" if kept else "--json FILE keeps what is learned"
        raise type(error)(f"{error}; {lost}") from None
    print(f"\nwrote thresholds and probability maps into {target.path}")


def _from_texts_alone(job: CalibrateJob, target: Target) -> None:
    """Thresholds and maps from captions: a start, no more, as no picture was seen."""
    from taidpt.calibration.from_texts.caption_scores import tags_from_captions

    if not job.dry_run:
        refuse_unwritable(target.file)
    found = dict(zip(target.names, tags_from_captions(target, str(job.texts)), strict=True))
    print_text_table(found)
    if not job.dry_run:
        maps = {name: (one.threshold, one.probability) for name, one in found.items()}
        target.write(maps, {"frames": 0})
        print(f"wrote thresholds and probability maps into {target.path}")


def _from_matrix(job: CalibrateJob) -> _Input:
    matrix = ScoreFile.load(str(job.scores))
    if job.judge and (matrix.targets is None or not (matrix.targets > 0).any()):
        raise InputError(f"{job.scores}: --judge needs targets with at least one positive")
    scale = _Scale(matrix.names, job.score_transform, job.merge_weight)
    plain = "none" if job.score_transform == _AUTO else job.score_transform
    scores = matrix.merged(job.merge_weight, plain)
    if job.score_transform == _AUTO:
        scores = _chosen(scores, ("none", "center"))[0]
    labels = _labels(job, scale)
    known = None if labels is None else labels.of([str(index) for index in range(len(scores))])
    return _Input(scores, scale.names, matrix.targets, _hint(job, scale, None), known)


def _from_frames(job: CalibrateJob, target: Target) -> _Input:
    """Whatever can be read without the frames is read first: scoring them may take hours."""
    from taidpt.calibration.scene import refuse_unknown_frames, score_frames
    from taidpt.runtime.sources.base import SourceOptions
    from taidpt.runtime.sources.open import list_sources

    scoring = target.bundle.manifest.scoring
    if job.score_transform == _AUTO and scoring.transform != "log_softmax":
        raise InputError(
            f"{target.bundle.path}: its graph has the transform {scoring.transform}, and a "
            "temperature and a bias need log_softmax; export it again with --score-transform "
            "log_softmax --swappable-bank"
        )
    scale = _Scale(target.names, scoring.transform, scoring.merge_weight)
    labels = _labels(job, scale)
    colours = target.bundle.manifest.input.source_colours
    options = SourceOptions(recursive=True, every=job.every, colours=colours)
    with contextlib.ExitStack() as stack:
        sources = list_sources(job.sources, options)
        for source in sources:
            stack.enter_context(source)
        if labels is not None:
            refuse_unknown_frames(labels, sources, job.every, job.max_frames)
        hint = _hint(job, scale, target)
        tagger = stack.enter_context(target.open_tagger())
        scene = score_frames(tagger, sources, job.max_frames)
    known = None if labels is None else labels.of(scene.frames)
    scores = scene.scores
    if job.score_transform == _AUTO and isinstance(target, BankTarget):
        scores, transform = _chosen(scores, ("none",))
        if transform.bias.any():
            target.use_transform(transform)
    return _Input(scores, scale.names, None, hint, known, scene.effective_frames, scene.problem)


def _chosen(scores: Floats, kinds: tuple[str, ...]) -> tuple[Floats, ScoreTransform]:
    """Scores after the transform that is chosen without labels; prints what and why."""
    with show_elapsed("choosing a transform of scores"):
        transform, expected = choose_transform(scores, kinds)
    print("expected macro-F1 after each transform of scores, %")
    for name, value in expected.items():
        mark = "  <- chosen" if name == str(transform) else ""
        print(f"  {name:50}{100 * value:6.1f}{mark}")
    print()
    return transform(scores), transform


def _labels(job: CalibrateJob, scale: _Scale) -> LabelFile | None:
    return None if job.labels is None else LabelFile.read(job.labels, scale.names)


def _hint(job: CalibrateJob, scale: _Scale, target: Target | None) -> Hint | None:
    if job.texts is None:
        return None
    from taidpt.calibration.from_texts.hint import hint_from_texts

    texts = _text_scores(job.texts, target)
    if texts.targets is None or texts.global_scores.shape[1] != len(scale.names):
        raise InputError(f"{job.texts}: expected targets and scores of {len(scale.names)} tags")
    return hint_from_texts(texts.merged(scale.merge_weight, scale.transform), texts.targets)


def _text_scores(path: str, target: Target | None) -> ScoreFile:
    """Scores of captions: ready in an .npz, or from the text tower of the bundle's model."""
    if path.endswith(".npz"):
        return ScoreFile.load(path)
    if target is None:
        raise InputError(f"--texts {path}: captions need a bundle; with --scores give an .npz")
    from taidpt.calibration.from_texts.caption_scores import score_captions

    return score_captions(target, path)


def _print_report(calibration: Calibration, given: _Input) -> None:
    from taidpt.calibration.judging.report import compare

    assert given.targets is not None
    with show_elapsed("comparing with thresholds chosen with labels"):
        found = compare(given.scores, given.targets, calibration)
    print("\nmacro-F1, % of tags with a positive")
    for line, value in (
        ("ours, no labels", found.ours),
        ("one threshold, chosen with these labels", found.single),
        ("a threshold a tag, chosen with these labels", found.oracle),
        ("Otsu a tag, no labels", found.otsu),
        ("two Gaussians a tag, no labels", found.gaussians),
    ):
        print(f"  {line:44}{100 * value:6.1f}")
    print(f"expected calibration error of the probabilities {found.calibration_error:.4f}")
    if np.isfinite(found.false_on):
        print(f"tags that never occur are on in {found.false_on:.2%} of frames")


def _write_json(path: str, calibration: Calibration) -> None:
    document = {
        "frames": calibration.frames,
        "effective_frames": calibration.effective_frames,
        "tags": [dataclasses.asdict(tag) for tag in calibration.tags],
    }
    write_json(path, document)
