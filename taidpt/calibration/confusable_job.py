"""The work behind `taidpt confusable`."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from taidpt.calibration.confusable import find_confusable
from taidpt.calibration.confusable_report import lines, write_report
from taidpt.runtime.bank import ClassBank, Threshold
from taidpt.runtime.bank_file import is_bank
from taidpt.runtime.bundle import Bundle
from taidpt.runtime.errors import InputError

__all__ = ["run_confusable"]


def run_confusable(
    path: str, sources: tuple[str, ...], texts: str | None, output: str | None, most: int
) -> None:
    """Print the report, and write it where that was asked for.

    Raises:
        InputError: frames or texts with a bank alone, and what the parts raise.
    """
    if is_bank(Path(path)):
        if sources or texts is not None:
            raise InputError(f"{path} is a bank: --frames and --texts need a bundle")
        bank = ClassBank.load(path)
        unknown = Threshold(0.0, 0.0, "default")
        found = find_confusable(bank, bank.thresholds or (unknown,) * len(bank.names))
    else:
        bundle = Bundle.load(path)
        thresholds = tuple(tag.threshold for tag in bundle.manifest.tags)
        scores = _scores(path, sources, most) if sources else None
        named = None if texts is None else _named(bundle, texts)
        found = find_confusable(bundle.bank, thresholds, scores, named)
    print("\n".join(lines(found)))
    if output is not None:
        write_report(found, output)
        print(f"\nwrote {output}")


def _scores(path: str, sources: tuple[str, ...], most: int) -> npt.NDArray[np.float64]:
    from taidpt.calibration.scene import score_frames
    from taidpt.runtime.sources import SourceOptions, open_source
    from taidpt.runtime.tagger import Tagger

    with contextlib.ExitStack() as stack:
        tagger = stack.enter_context(Tagger.load(path))
        options = SourceOptions(colours=tagger.bundle.manifest.input.source_colours)
        opened = [stack.enter_context(open_source(text, options)) for text in sources]
        return score_frames(tagger, opened, most).scores


def _named(bundle: Bundle, texts: str) -> npt.NDArray[np.int64]:
    from taidpt.calibration.caption_scores import label_captions
    from taidpt.calibration.targets import BundleTarget

    return np.asarray((label_captions(BundleTarget(bundle), texts)[1] > 0).sum(axis=0), np.int64)
