"""Every step on the embedded toy world: captions in, tags on a video out."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.calibration.job import CalibrateJob, run_calibrate
from taidpt.clip.model import load_clip
from taidpt.datasets.toyworld import load_toyworld
from taidpt.evaluation.comparison import merged_head
from taidpt.evaluation.methods import MethodInputs, score_method
from taidpt.export.demo.page import DemoReport, MethodScore, write_page
from taidpt.export.exporter import ExportOptions, export_bundle
from taidpt.features.pictures import encode_pictures
from taidpt.metrics import mean_average_precision
from taidpt.progress import Progress
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.bundle.manifest import TagEntry
from taidpt.runtime.events.machine import Interval
from taidpt.runtime.painting.tag_boxes import Painter
from taidpt.runtime.sinks.jsonl import JsonlSink
from taidpt.runtime.sinks.overlay import OverlaySink
from taidpt.runtime.stream.moment import Moment
from taidpt.runtime.tagger.tagger import Tagger
from taidpt.texts.tags import TagSet
from taidpt.toyworld import assets
from taidpt.toyworld.assets import load_heldout
from taidpt.tuning.settings import TuneSettings
from taidpt.tuning.text_job import TuneJob, run_job

__all__ = ["DEMO_SETTINGS", "DemoResult", "run_demo"]

MODEL = ("toyworld", "embedded")
DEMO_SETTINGS = TuneSettings(lr=assets.TUNING_RATE)

# What fits on one screen: two rows of frames with a line of tags each, and a row of heatmaps.
_SHOWN_FRAMES = 6
_SHOWN_HEATMAPS = 3
_BATCH = 8
_VIDEO = "tags.mp4"
_FPS = 10  # tags of the video last for seconds; more frames would only take longer


@dataclass(frozen=True)
class DemoResult:
    """The files that were written, and the contents of the page."""

    page: Path
    prompts: Path
    bundle: Path
    jsonl: Path
    video: Path
    report: DemoReport


@dataclass(frozen=True)
class _TaggedVideo:
    """The number of tagged frames, the intervals of tags, and moments.

    Attributes:
        moments: one a second.
        starts: those at which a tag came on.
    """

    frames: int
    spans: tuple[Interval, ...]
    moments: list[Moment]
    starts: list[Moment]


@dataclass
class _Watch:
    """The time of each stage, in seconds."""

    seconds: dict[str, float] = field(default_factory=dict)
    since: float = field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage], self.since = now - self.since, now


def run_demo(
    output: Path, progress: Progress, settings: TuneSettings = DEMO_SETTINGS
) -> DemoResult:
    """Tune, export, calibrate, tag and evaluate on the toy world; write the results and a page.

    Args:
        output: a folder, created if missing; an earlier demo in it is replaced.
        progress: told about each stage.
        settings: of the tuning.
    """
    output.mkdir(parents=True, exist_ok=True)
    prompts, bundle = output / "toyworld.safetensors", output / "toyworld.taidpt"
    watch = _Watch()
    run_job(_tune_job(prompts, settings), progress)
    watch.lap("tuning")
    parity = export_bundle(prompts, bundle, ExportOptions(), progress).parity
    watch.lap("export")
    tags = _calibrate(bundle, progress)
    watch.lap("calibration")
    jsonl, overlay = output / "tags.jsonl", output / _VIDEO
    with Tagger.load(bundle, device="cpu") as tagger:
        video = _tag_video(tagger, jsonl, overlay, progress)
        watch.lap("tagging the video")
        scores = _score_pictures(tagger, progress)
        watch.lap("held-out pictures")
        tagged = [moment for moment in video.moments if moment.on]
        report = DemoReport(
            scores=scores,
            found=video.spans,
            truth=tuple(
                Interval(span["tag"], span["start"], span["end"], 1.0) for span in assets.timeline()
            ),
            frames=_middles(video.moments, _SHOWN_FRAMES),
            heatmaps=_middles(tagged or video.moments, _SHOWN_HEATMAPS),
            starts=tuple(video.starts),
            tags=tags,
            facts=_facts(settings, watch.seconds, video.frames, parity.head("scores").minimum),
            input=tagger.bundle.manifest.input,
        )
    page = write_page(report, output, _VIDEO)
    return DemoResult(page, prompts, bundle, jsonl, overlay, report)


def _tune_job(prompts: Path, settings: TuneSettings) -> TuneJob:
    return TuneJob(
        *MODEL,
        tags=assets.path("tags.yaml"),
        texts=(assets.path("tuning_captions.txt"),),
        output=prompts,
        settings=settings,
        restart=True,
    )


def _calibrate(bundle: Path, progress: Progress) -> tuple[TagEntry, ...]:
    """Set thresholds from the pictures of the "train" split without their labels.

    Returns:
        The bundle's tags with the thresholds that it has now.
    """
    progress.start("Calibrating on unlabelled pictures", 1)
    with tempfile.TemporaryDirectory() as folder:
        pictures = load_toyworld(folder, "train").paths[0].parent
        run_calibrate(CalibrateJob(str(bundle), sources=(str(pictures),), quiet=True))
    progress.advance()
    return Bundle.load(bundle).manifest.tags


def _tag_video(tagger: Tagger, jsonl: Path, overlay: Path, progress: Progress) -> _TaggedVideo:
    kept: list[Moment] = []
    starts: list[Moment] = []
    frames = 0
    with (
        tagger.stream(assets.path("demo.mp4"), max_fps=_FPS) as stream,
        closing(JsonlSink(jsonl)) as sink,
        closing(OverlaySink(overlay, Painter(tagger.bundle.manifest.input))) as painted,
    ):
        progress.start("Tagging the video", stream.source.total or 1)
        for frames, moment in enumerate(stream, start=1):
            sink.write(moment)
            painted.write(moment)
            progress.advance(detail=", ".join(moment.on[:3]))
            if frames % _FPS == _FPS // 2:  # the video's cuts are at whole seconds
                kept.append(moment)
            if any(event.kind == "on" for event in moment.events):
                starts.append(moment)
        return _TaggedVideo(frames, stream.timeline(), kept, starts)


def _score_pictures(tagger: Tagger, progress: Progress) -> tuple[MethodScore, ...]:
    """mAP on the held-out pictures: templates through PyTorch, prompts through the bundle."""
    pictures, labels, names = load_heldout()
    crops = tagger.preprocess.batch(pictures)
    progress.start("Scoring held-out pictures", len(crops))
    clip = load_clip(*MODEL)
    features = encode_pictures(clip, crops)
    inputs = MethodInputs(clip, TagSet.from_names(names))
    plain, ensemble, dpt, dpt_ensemble = (
        merged_head(score_method(method, inputs, features), 0.5)
        for method in ("zsclip", "zsclip80", "clipdpt", "clipdpt80")
    )
    tuned: dict[str, list[npt.NDArray[np.float32]]] = {"global_scores": [], "scores": []}
    for start in range(0, len(crops), _BATCH):
        batch = tagger.tag_batch(crops[start : start + _BATCH])
        for head, parts in tuned.items():
            parts.append(batch.outputs[head])
        progress.advance(len(batch))
    columns = [tagger.names.index(name) for name in names]
    rows: tuple[tuple[str, str, npt.NDArray[Any]], ...] = (
        ("zero-shot CLIP", "“a photo of a {}.”", plain),
        ("zero-shot CLIP, 80 templates", "the ensemble's mean", ensemble),
        ("CLIP-DPT", "“a photo of a {}.” with the local branch", dpt),
        ("CLIP-DPT, 80 templates", "the ensemble with the local branch", dpt_ensemble),
        ("TaI", "the tuned global prompt", np.concatenate(tuned["global_scores"])[:, columns]),
        ("TaI-DPT", "tuned global and local prompts", np.concatenate(tuned["scores"])[:, columns]),
    )
    targets = np.where(labels > 0, 1, -1)
    return tuple(
        MethodScore(name, explanation, mean_average_precision(scores, targets).value)
        for name, explanation, scores in rows
    )


def _middles(moments: Sequence[Moment], most: int) -> tuple[Moment, ...]:
    """The middle moments of equal parts of the video."""
    count = min(most, len(moments))
    return tuple(moments[(2 * part + 1) * len(moments) // (2 * count)] for part in range(count))


def _facts(
    settings: TuneSettings, seconds: dict[str, float], frames: int, parity: float
) -> tuple[tuple[str, str], ...]:
    pictures, _, names = load_heldout()
    return (
        ("model", "the embedded toy CLIP, trained by this project on scenes it renders"),
        ("tags", f"{len(names)}"),
        ("tuning", f"{settings.epochs} epochs on texts alone, seed {settings.seed}"),
        ("pictures", f"{len(pictures)} held out, never seen by model or prompts"),
        ("video", f"{frames} frames tagged, taken at {_FPS} a second"),
        ("parity", f"least centred cosine of scores with PyTorch {parity:.6f}"),
        ("seconds", ", ".join(f"{stage} {value:.0f}" for stage, value in seconds.items())),
    )
