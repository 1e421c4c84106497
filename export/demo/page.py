"""The demo's pictures and its HTML page."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from taidpt.runtime.bundle.input_spec import InputSpec
from taidpt.runtime.bundle.manifest import TagEntry
from taidpt.runtime.events.machine import Interval
from taidpt.runtime.pages.page import page
from taidpt.runtime.pages.timeline import Bar, Row, Thumbnail, image_source, timeline
from taidpt.runtime.painting.drawing import jpeg, rgb_image
from taidpt.runtime.painting.tag_boxes import Painter
from taidpt.runtime.printable import clock_text
from taidpt.runtime.storage.outputs import write_output
from taidpt.runtime.stream.moment import Moment

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["NEXT_COMMANDS", "DemoReport", "MethodScore", "threshold_line", "write_page"]

# What to run next, on the user's own tags, captions and video.
NEXT_COMMANDS = (
    "taidpt tune --model RN50-quickgelu --pretrained openai --tags tags.yaml --texts captions.txt "
    "-o mine.safetensors",
    "taidpt-export mine.safetensors -o mine.taidpt",
    "taidpt tag mine.taidpt clip.mp4 --overlay tags.mp4",
)
_TOY = (
    "<strong>This is a toy world.</strong> The pictures are rendered emoji, the model is a tiny "
    "CLIP that this project trained on such scenes, and nothing here says how well a real CLIP "
    "does on real photographs. It shows the whole line: captions in, prompts tuned, a bundle out, "
    "and a tagger without PyTorch."
)
# Three frames side by side fill a wide page, and README's picture.
_COLUMNS = 3
_FRAME_WIDTH = 480
_SMALL_WIDTH = 96


@dataclass(frozen=True)
class MethodScore:
    """One line of the table: a method and its mAP in percent."""

    name: str
    explanation: str
    mean_average_precision: float


@dataclass(frozen=True)
class DemoReport:
    """All contents of the page.

    Attributes:
        scores: the table of methods.
        found, truth: when tags are on in the video.
        frames: moments to show with their tags.
        heatmaps: moments to show with the heatmap of their best tag.
        starts: a moment near the start of each tag that was found, for the timeline.
        tags: the bundle's tags after calibration.
        facts: a name and a value each.
        input: `input` of the bundle's manifest, which places heatmaps.
    """

    scores: tuple[MethodScore, ...]
    found: tuple[Interval, ...]
    truth: tuple[Interval, ...]
    frames: tuple[Moment, ...]
    heatmaps: tuple[Moment, ...]
    starts: tuple[Moment, ...]
    tags: tuple[TagEntry, ...]
    facts: tuple[tuple[str, str], ...]
    input: InputSpec


def write_page(report: DemoReport, folder: Path, video: str) -> Path:
    """Write `index.html`, and `frames.png` with the page's frames side by side.

    Args:
        report: the demo's results.
        folder: an existing folder; files of the same names are replaced.
        video: the name of the overlay video in the folder.
    Returns:
        The page's path.
    """
    frames = [Painter(report.input).paint(moment) for moment in report.frames]
    if frames:
        _montage(frames).save(folder / "frames.png")
    target = folder / "index.html"
    body = "\n".join(_sections(report, frames, video))
    write_output(target, page("A tagger tuned without a single picture", body))
    return target


def _sections(report: DemoReport, frames: Sequence[Image], video: str) -> Iterable[str]:
    yield f'<p class="note">{_TOY}</p>'
    yield "<h2>The video with its tags</h2>"
    yield f'<video controls muted playsinline src="{html.escape(video)}"></video>'
    yield f'<p class="soft">{html.escape(video)} lies beside this page.</p>'
    yield "<h2>When tags are on</h2>"
    yield '<p class="soft">Wide and grey: the truth. Narrow and green: what the tagger found.</p>'
    yield _timeline(report)
    yield "<h2>Frames</h2>"
    yield _cards(frames, [f"at {clock_text(moment.time or 0.0)}" for moment in report.frames])
    yield "<h2>Where it looks</h2>"
    yield '<p class="soft">The similarity of each patch with the best tag of the frame.</p>'
    best = [_best_on(moment) for moment in report.heatmaps]
    painted = [
        Painter(report.input, heatmap=tag).paint(moment)
        for moment, tag in zip(report.heatmaps, best, strict=True)
    ]
    yield _cards(painted, [f"where is the {tag}?" for tag in best])
    yield "<h2>Thresholds</h2>"
    yield f"<p>{threshold_line(report.tags)}</p>"
    yield _thresholds(report.tags)
    yield "<h2>Held-out pictures</h2>"
    yield _methods(report.scores)
    yield "<h2>How it was made</h2>"
    yield _facts(report.facts)
    yield "<h2>Your own tags next</h2>"
    yield f"<pre>{html.escape(chr(10).join(NEXT_COMMANDS))}</pre>"


def _best_on(moment: Moment) -> str:
    """The best tag of those that are on, or of all."""
    on = [moment.result[name] for name in moment.on]
    return max(on or moment.result.top(1), key=lambda tag: tag.score).name


def _timeline(report: DemoReport) -> str:
    spans = (*report.truth, *report.found)
    first = {
        tag: min(span.start_s for span in report.truth if span.tag == tag)
        for tag in {span.tag for span in report.truth}
    }
    tags = sorted({span.tag for span in spans}, key=lambda tag: (first.get(tag, float("inf")), tag))
    rows = [
        Row(tag, [*_bars(report.truth, tag, "truth"), *_bars(report.found, tag, "found")])
        for tag in tags
    ]
    small = [
        Thumbnail(moment.time or 0.0, jpeg(rgb_image(moment.frame.picture), _SMALL_WIDTH), tag, "")
        for moment in report.starts
        for tag in [", ".join(moment.on)]
    ]
    return timeline("video", rows, max(span.end_s for span in spans), small)


def _bars(spans: Sequence[Interval], tag: str, kind: str) -> list[Bar]:
    return [
        Bar(
            span.start_s,
            span.end_s,
            f"{tag}, {kind}: {clock_text(span.start_s)}–{clock_text(span.end_s)}",
            kind,
        )
        for span in spans
        if span.tag == tag
    ]


def _cards(pictures: Sequence[Image], captions: Sequence[str]) -> str:
    cards = [
        f'<figure><img alt="{html.escape(caption)}" '
        f'src="{image_source(jpeg(picture, _FRAME_WIDTH))}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for picture, caption in zip(pictures, captions, strict=True)
    ]
    return f'<div class="cards">{"".join(cards)}</div>'


def threshold_line(tags: Sequence[TagEntry]) -> str:
    """How many thresholds were calibrated, and from which score to which they reach."""
    calibrated = [tag for tag in tags if tag.threshold.source == "calibrated"]
    ons = [tag.threshold.on for tag in tags]
    return (
        f"{len(calibrated)} of {len(tags)} thresholds were set from unlabelled pictures; "
        f"tags switch on at scores from {min(ons):.3f} to {max(ons):.3f}"
    )


def _thresholds(tags: Sequence[TagEntry]) -> str:
    """Where each tag switches, folded: sixty rows are long on a phone."""
    rows = "".join(
        f'<tr><td>{html.escape(tag.name)}</td><td class="number">{tag.threshold.on:.3f}</td>'
        f'<td class="number">{tag.threshold.off:.3f}</td><td class="number">'
        f"{(tag.probability or {}).get('expected_share', 0.0):.1%}</td>"
        f"<td>{html.escape(tag.threshold.source)}</td></tr>"
        for tag in tags
    )
    head = "".join(f'<th class="number">{name}</th>' for name in ("on", "off", "seen in"))
    return (
        f'<details><summary>the threshold of each tag</summary><div class="scroll"><table><thead>'
        f"<tr><th>tag</th>{head}<th>source</th></tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _methods(scores: Sequence[MethodScore]) -> str:
    rows = "".join(
        f"<tr><td><strong>{html.escape(score.name)}</strong><br>"
        f'<span class="soft">{html.escape(score.explanation)}</span></td>'
        f'<td class="number">{score.mean_average_precision:.1f}</td><td><span class="meter">'
        f'<span style="width:{score.mean_average_precision:.1f}%"></span></span></td></tr>'
        for score in scores
    )
    head = '<thead><tr><th>method</th><th class="number">mAP, %</th><th></th></tr></thead>'
    return f'<div class="scroll"><table>{head}<tbody>{rows}</tbody></table></div>'


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    rows = "".join(
        f'<tr><td class="soft">{html.escape(name)}</td><td>{html.escape(value)}</td></tr>'
        for name, value in facts
    )
    return f"<table><tbody>{rows}</tbody></table>"


def _montage(pictures: Sequence[Image]) -> Image:
    """The pictures side by side, in rows of three, all of the first one's size."""
    from PIL import Image

    width, height = pictures[0].size
    gap = max(width // 40, 1)
    rows = -(-len(pictures) // _COLUMNS)
    size = _COLUMNS * (width + gap) - gap, rows * (height + gap) - gap
    whole = Image.new("RGB", size, "white")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, _COLUMNS)
        whole.paste(picture, (column * (width + gap), row * (height + gap)))
    return whole
