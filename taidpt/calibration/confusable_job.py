"""The work behind `taidpt calibrate --report`."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from taidpt.calibration.scene import SceneScores, score_frames
from taidpt.calibration.statistics.confusable import Confusion, find_confusable
from taidpt.calibration.statistics.confusable_report import check_report, lines, write_report
from taidpt.calibration.targets import Target, open_target
from taidpt.runtime.bank.bank_file import is_bank
from taidpt.runtime.bank.class_bank import ClassBank, Threshold
from taidpt.runtime.errors import InputError

__all__ = ["run_confusable"]


def run_confusable(
    path: str,
    sources: tuple[str, ...],
    texts: str | None,
    output: str | None,
    most: int,
    bank: str | None = None,
) -> None:
    """Print the report, and write it where that was asked for.

    Args:
        path: a bundle, or a bank's file alone. bank: another than the bundle's.
    Raises:
        InputError: frames, texts or another bank with a bank alone, and what the parts raise.
    """
    if output is not None:
        check_report(output)
    if is_bank(Path(path)):
        if sources or texts is not None or bank is not None:
            raise InputError(f"{path} is a bank: --frames, --texts and --bank need a bundle")
        found, problem = _of_bank(ClassBank.load(path)), None
    else:
        found, problem = _of_target(open_target(path, bank), sources, texts, most)
    print("\n".join(lines(found)))
    if output is not None:
        write_report(found, output)
        print(f"\nwrote {output}")
    if problem is not None:
        raise problem


def _of_bank(bank: ClassBank) -> Confusion:
    unknown = Threshold(0.0, 0.0, "default")
    return find_confusable(bank, bank.thresholds or (unknown,) * len(bank.names))


def _of_target(
    target: Target, sources: tuple[str, ...], texts: str | None, most: int
) -> tuple[Confusion, InputError | None]:
    named = None if texts is None else _named(target, texts)
    if not sources:
        return find_confusable(target.bank, target.thresholds, None, named), None
    scene = _scene(target, sources, most)
    return find_confusable(target.bank, target.thresholds, scene.scores, named), scene.problem


def _scene(target: Target, sources: tuple[str, ...], most: int) -> SceneScores:
    from taidpt.runtime.sources.base import SourceOptions
    from taidpt.runtime.sources.open import list_sources

    options = SourceOptions(recursive=True, colours=target.bundle.manifest.input.source_colours)
    with contextlib.ExitStack() as stack:
        found = list_sources(sources, options)
        for source in found:
            stack.enter_context(source)
        return score_frames(stack.enter_context(target.open_tagger()), found, most, "a report")


def _named(target: Target, texts: str) -> npt.NDArray[np.int64]:
    from taidpt.calibration.from_texts.caption_scores import label_captions

    return np.asarray((label_captions(target, texts)[1] > 0).sum(axis=0), np.int64)
