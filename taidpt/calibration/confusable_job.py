"""The work behind `taidpt calibrate --report`."""

from __future__ import annotations

import contextlib
from pathlib import Path

from taidpt.calibration.scene import score_frames
from taidpt.calibration.targets import Target, open_target
from taidpt.confusable.pairs import Confusion, find_confusable
from taidpt.confusable.report import check_report, lines, write_report
from taidpt.runtime.bank.bank_file import is_bank
from taidpt.runtime.bank.class_bank import ClassBank, Threshold
from taidpt.runtime.errors import InputError
from taidpt.runtime.stream.frame_batches import open_sources

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
    problem = None
    if is_bank(Path(path)):
        if sources or texts is not None or bank is not None:
            raise InputError(f"{path} is a bank: --frames, --texts and --bank need a bundle")
        alone = ClassBank.load(path)
        unknown = (Threshold(0.0, 0.0, "default"),) * len(alone.names)
        found = find_confusable(alone, alone.thresholds or unknown)
    else:
        found, problem = _of_target(open_target(path, bank), sources, texts, most)
    print("\n".join(lines(found)))
    if output is not None:
        write_report(found, output)
        print(f"\nwrote {output}")
    if problem is not None:
        raise problem


def _of_target(
    target: Target, sources: tuple[str, ...], texts: str | None, most: int
) -> tuple[Confusion, InputError | None]:
    named = scores = problem = None
    if texts is not None:
        from taidpt.calibration.captions import label_captions

        named = (label_captions(target, texts)[1] > 0).sum(axis=0)
    if sources:
        with contextlib.ExitStack() as stack:
            opened = open_sources(stack, target.bundle, sources)
            tagger = stack.enter_context(target.open_tagger())
            scene = score_frames(tagger, opened, most, "a report")
        scores, problem = scene.scores, scene.problem
    return find_confusable(target.bank, target.thresholds, scores, named), problem
