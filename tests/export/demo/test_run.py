"""The whole line on the embedded world, once: what `make demo` shows is there and true."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import shlex
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from taidpt.cli import COMMANDS
from taidpt.export.demo import run as demo
from taidpt.export.demo.page import NEXT_COMMANDS
from taidpt.export.demo.run import DEMO_SETTINGS, DemoResult, run_demo
from taidpt.progress import SilentProgress
from taidpt.prompts.prompts_file import TunedPrompts
from taidpt.runtime.events.machine import Interval
from taidpt.runtime.tagger.tagger import Tagger
from taidpt.toyworld import assets

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    """The demo with 3 of its 20 epochs and a third of its held-out pictures: the longest test."""
    settings = dataclasses.replace(DEMO_SETTINGS, epochs=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "load_heldout", partial(assets.load_heldout, every=3))
        return run_demo(tmp_path_factory.mktemp("demo"), SilentProgress(), settings)


def test_tuning_on_texts_alone_beats_every_template(result: DemoResult) -> None:
    found = {score.name: score.mean_average_precision for score in result.report.scores}
    templates = [
        "zero-shot CLIP",
        "zero-shot CLIP, 80 templates",
        "CLIP-DPT",
        "CLIP-DPT, 80 templates",
    ]
    assert found["TaI-DPT"] > max(92, *(found[name] for name in templates))
    assert found["TaI-DPT"] > found["TaI"]


def test_prompts_and_bundle_are_whole(result: DemoResult) -> None:
    prompts = TunedPrompts.load(result.prompts)
    with Tagger.load(result.bundle, device="cpu") as tagger:
        assert tagger.names == prompts.names
        assert tagger.bundle.verify_hashes() == ()
    assert tagger.bundle.manifest.tags == result.report.tags
    sources = [tag.threshold.source for tag in result.report.tags]
    assert sources == ["calibrated"] * 60


def test_timeline_follows_the_truth(result: DemoResult) -> None:
    """Each thing is found within a second of its coming; no row is false for over a second."""
    truth, found = result.report.truth, result.report.found
    late = [
        span
        for span in truth
        if not any(
            row.tag == span.tag and row.start_s <= span.start_s + 1 and row.end_s > span.start_s
            for row in found
        )
    ]
    assert late == []
    false = [row for row in found if seconds_without(row, truth) > 1]
    assert false == []


def seconds_without(row: Interval, truth: tuple[Interval, ...]) -> float:
    """How long a tag's row lies outside all true spans of the tag, which never overlap."""
    shared = (
        min(row.end_s, span.end_s) - max(row.start_s, span.start_s)
        for span in truth
        if span.tag == row.tag
    )
    return row.end_s - row.start_s - sum(max(part, 0) for part in shared)


def test_every_frame_has_its_line(result: DemoResult) -> None:
    lines = [json.loads(line) for line in result.jsonl.read_text("utf-8").splitlines()]
    times = [line["time_s"] for line in lines]
    assert times == sorted(times)
    assert {line["schema"] for line in lines} == {"taidpt-frame/1"}
    last = max(span["end"] for span in assets.timeline())
    assert times[-1] >= last - 1


def test_page_needs_the_video_alone(result: DemoResult) -> None:
    page = result.page.read_text("utf-8")
    assert "toy world" in page
    text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)  # a picture may spell any word
    assert "http" not in text
    assert set(re.findall(r'src="([^"]*)"', text)) == {"data:image/jpeg;", "tags.mp4"}
    for score in result.report.scores:
        assert f"{score.mean_average_precision:.1f}" in page
    for kind, spans in (("truth", result.report.truth), ("found", result.report.found)):
        assert page.count(f'<rect class="{kind}"') == len(spans)
    for command in NEXT_COMMANDS:
        assert html.escape(command) in page
    for tag in result.report.tags:
        assert f'<td>{tag.name}</td><td class="number">{tag.threshold.on:.3f}</td>' in page
    with Image.open(result.page.with_name("frames.png")) as picture:
        assert picture.size == (3 * 480 + 2 * 12, 2 * 480 + 12)
        assert np.asarray(picture.convert("L")).std() > 10


def test_video_plays_with_tags_on_it(result: DemoResult) -> None:
    lines = [json.loads(line) for line in result.jsonl.read_text("utf-8").splitlines()]
    with av.open(str(result.video)) as container:
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == pytest.approx(
        [line["time_s"] for line in lines], abs=2e-3
    )


def test_commands_for_the_users_own_tags_are_valid() -> None:
    """Parsed by the commands themselves, which then read no file."""
    for line in NEXT_COMMANDS:
        name, *words = shlex.split(line)
        command = "export" if name == "taidpt-export" else words.pop(0)
        loaded = COMMANDS[command].load()
        assert loaded.make_context(command, words).params


def test_nothing_but_the_demo_is_left(result: DemoResult) -> None:
    expected = {
        "frames.png",
        "index.html",
        "tags.jsonl",
        "tags.mp4",
        "toyworld.safetensors",
        "toyworld.taidpt",
    }
    assert {path.name for path in Path(result.page.parent).iterdir()} == expected
