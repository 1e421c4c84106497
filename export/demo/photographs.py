"""The demo's line on photographs, with a published model and everyday tags."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from taidpt.calibration.job import CalibrateJob, run_calibrate
from taidpt.export.demo.shipped import FOLDER, PictureTags, photographs
from taidpt.export.exporter import ExportOptions, export_bundle
from taidpt.progress import Progress
from taidpt.runtime.errors import InputError
from taidpt.runtime.painting.tag_boxes import Painter
from taidpt.runtime.sinks.report import ReportSink
from taidpt.runtime.sinks.saved_frames import SavedFramesSink
from taidpt.runtime.sources.base import SourceOptions
from taidpt.runtime.sources.open import list_sources
from taidpt.runtime.tagger.tagger import Tagger
from taidpt.texts.labels import TextLabeler
from taidpt.texts.tags import TagSet
from taidpt.toyworld import assets
from taidpt.tuning.settings import TuneSettings
from taidpt.tuning.text_job import TuneJob, run_job

__all__ = ["EVERYDAY_TAGS", "PhotographsResult", "run_photographs"]

MODEL = "RN50-quickgelu"
# What people photograph at home and in the street; each occurs in the package's captions. Eight are
# in none of the package's photographs, so that a tag that is always on counts as wrong.
EVERYDAY_TAGS = (
    *("person", "dog", "cat", "bird", "horse", "car", "bus", "bicycle", "motorcycle", "train"),
    *("boat", "airplane", "chair", "teddy bear", "laptop", "book", "cup", "spoon", "pizza"),
    "umbrella",
)
# About 50 captions a tag: the text tower encodes each once, which is most of the wait on a CPU.
_CAPTIONS = 1000


@dataclass(frozen=True)
class PhotographsResult:
    """The files that were written.

    Attributes:
        note: why thresholds stayed those from texts; "" where they were calibrated.
        frames: how many pictures and frames were tagged.
        shipped: the tags of each of the package's photographs; empty for other sources.
    """

    prompts: Path
    bundle: Path
    page: Path
    pictures: Path
    note: str
    frames: int
    shipped: tuple[PictureTags, ...]


def run_photographs(
    output: Path,
    pretrained: str,
    sources: tuple[str, ...],
    progress: Progress,
    settings: TuneSettings,
    captions: int = _CAPTIONS,
) -> PhotographsResult:
    """Tune everyday tags on a published model, calibrate on the sources, and tag them.

    Args:
        output: a folder, created if missing; an earlier demo in it is replaced.
        pretrained: weights of OpenAI's RN50: an open_clip tag or a file.
        sources: pictures, folders or videos without labels; none for the package's photographs.
        progress: told about each stage.
        settings: of the tuning.
        captions: how many captions of the package to tune on.
    Raises:
        InputError: a source or the weights cannot be used.
    """
    truth = {} if sources else photographs()
    sources = sources or (str(FOLDER),)
    list_sources(sources, SourceOptions())  # before minutes of work
    output.mkdir(parents=True, exist_ok=True)
    prompts, bundle = output / "everyday.safetensors", output / "everyday.taidpt"
    tags = TagSet.from_names(EVERYDAY_TAGS)
    job = TuneJob(
        MODEL,
        pretrained,
        tags=tags,
        texts=(),
        captions=_captions(tags, captions),
        output=prompts,
        settings=settings,
        restart=True,
    )
    run_job(job, progress)
    export_bundle(prompts, bundle, ExportOptions(), progress)
    note = _calibrate(bundle, sources)
    page, pictures = output / "index.html", output / "pictures"
    tagged = _tag(bundle, sources, page, pictures, truth)
    return PhotographsResult(
        prompts, bundle, page, pictures, note, len(tagged), tagged if truth else ()
    )


def _captions(tags: TagSet, count: int) -> tuple[str, ...]:
    """The first captions of the package that name a tag."""
    labeler = TextLabeler(tags)
    lines = assets.path("tuning_captions.txt").read_text("utf-8").splitlines()
    named = [line for line in lines if labeler.labels(line)]
    return tuple(named[:count])


def _calibrate(bundle: Path, sources: tuple[str, ...]) -> str:
    """Set thresholds from the sources; the reason where they show too little."""
    try:
        run_calibrate(CalibrateJob(bundle=str(bundle), sources=sources, quiet=True))
    except InputError as error:
        return str(error)
    return ""


def _tag(
    bundle: Path,
    sources: tuple[str, ...],
    page: Path,
    pictures: Path,
    truth: dict[str, frozenset[str]],
) -> tuple[PictureTags, ...]:
    tagged: list[PictureTags] = []
    with (
        Tagger.load(bundle, device="cpu") as tagger,
        closing(ReportSink(page, "Everyday tags on photographs")) as report,
        closing(SavedFramesSink(pictures, Painter(tagger.bundle.manifest.input))) as saved,
    ):
        for source in sources:
            with tagger.stream(source) as stream:
                for moment in stream:
                    report.write(moment)
                    saved.write(moment)
                    name, ranked = Path(moment.frame.source).name, [t.name for t in moment.tags]
                    on = tuple(tag for tag in ranked if tag in moment.on)
                    tagged.append(PictureTags(name, truth.get(name, frozenset()), on, ranked[0]))
                for name in stream.sources or (stream.source.name,):
                    report.end_source(name, stream.timeline(name), stream.last_s(name))
    return tuple(tagged)
