"""Tagging from video beside `taidpt archive retag`, and the bytes a frame of each kind of features.

    python benchmarks/archive.py                     # prints the table
    python benchmarks/archive.py --write             # into docs/archive.md

A 720p video of moving noise, RN50 with random weights (--model: others of open_clip, or toyworld),
80 tags, one worker with one thread. Times are CPU time, because other programs of a shared machine
do not add to it; the start of the worker is counted. Differences are the largest of a score of all
frames and tags, between retagging with the bundle's own bank and the tagger.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.harness import marked
from benchmarks.pipeline import make_video
from benchmarks.tagger_overhead import make_bundle
from taidpt.runtime.archive import FEATURES
from taidpt.runtime.archive.folder import ArchiveFolder
from taidpt.runtime.archive.job import run_archive
from taidpt.runtime.archive.request import ArchiveJob
from taidpt.runtime.archive.retag import retag
from taidpt.runtime.backends.base import BackendOptions
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.tag.request import Outputs, TagJob
from taidpt.runtime.tagger.active_bank import bundle_bank

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "archive.md"
BEGIN, END = "<!-- archive: benchmarks/archive.py -->\n", "<!-- end of archive -->\n"
TAGS = 80
# The share of the whole that the issue asks of retagging: a hundredth.
GOAL = 100


def main() -> None:
    """Measure, print, and with --write put the table into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="RN50-quickgelu")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        text = table(Path(scratch), options.model)
    print(text)
    if options.write:
        DOCUMENT.write_text(marked(DOCUMENT.read_text("utf-8"), BEGIN, END, text), "utf-8")


def table(folder: Path, model: str) -> str:
    """The rows of all kinds of features, as Markdown."""
    bundle, video = make_bundle(folder, TAGS, model), make_video(folder / "moving.mp4")
    bundle_bank(Bundle.load(bundle)).save(folder / "own.bank")
    columns = "bytes a frame", "from video", "retag", "times as fast", "largest difference"
    rows = [f"| `--features` | {' | '.join(columns)} |", f"|{' --- |' * 6}"]
    rows += [row(folder, bundle, video, kind) for kind in FEATURES]
    return "\n".join(rows) + "\n"


def row(folder: Path, bundle: Path, video: Path, kind: str) -> str:
    """One kind of features."""
    archive, again = folder / kind, folder / f"{kind}-again"
    tag = TagJob(str(bundle), (str(video),), Outputs(top=TAGS), BackendOptions("cpu", threads=1))
    tagged_s = cpu_seconds(lambda: run_archive(ArchiveJob(tag, str(archive), kind, workers=1)))
    frames = ArchiveFolder.load(archive).read("manifest").column("frames")[0].as_py()
    stored = sum(path.stat().st_size for path in (archive / "frames").iterdir()) / frames
    cells = [f"`{kind}`", f"{stored:,.0f}", f"{1e3 * tagged_s / frames:.1f} ms"]
    if kind == "none":
        return f"| {' | '.join(cells)} | – | – | – |"
    scored_s = cpu_seconds(lambda: retag(str(archive), str(folder / "own.bank"), str(again)))
    ratio = tagged_s / scored_s
    cells += [f"{1e3 * scored_s / frames:.3f} ms", f"{ratio:.0f}{'' if ratio >= GOAL else ' (!)'}"]
    difference = np.abs(scores(archive) - scores(again)).max()
    cells.append("global scores alone" if kind == "global" else f"{difference:.1e}")
    return f"| {' | '.join(cells)} |"


def cpu_seconds(work: Callable[[], Any]) -> float:
    """CPU time of a call that prints, of this process and of those that it has waited for."""
    begun = used()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        work()
    return used() - begun


def used() -> float:
    """CPU time so far, in seconds."""
    both = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def scores(archive: Path) -> np.ndarray[Any, Any]:
    """Scores of all frames, [N, C], tags by name."""
    best = ArchiveFolder.load(archive).read("frames", ["top"]).column("top").to_pylist()
    named = [sorted((entry["tag"], entry["score"]) for entry in frame) for frame in best]
    return np.array([[score for _, score in frame] for frame in named])


if __name__ == "__main__":
    main()
