"""The GStreamer element in a real pipeline, and the ROS 2 node on a stub of rclpy."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from taidpt.runtime import Bundle, Event, Tagger
from tests.examples import stub_rclpy
from tests.runtime.tiny import TinySpec, tiny_bundle
from tests.runtime.videos import colour_frame
from tests.support import REPOSITORY, require

# The system's Python, which GStreamer's loader runs elements in, and the packages it needs there.
SYSTEM_PYTHON = "/usr/bin/python3"
PROBE = (
    "import sys, gi; gi.require_version('GstBase', '1.0'); from gi.repository import GstBase; "
    "print(*sys.version_info[:2])"
)
# Prints each frame's regions: the number of a tag → name, box, score and probability.
READER = """
import json, sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstVideo", "1.0")
from gi.repository import Gst, GstVideo

def seen(pad, info):
    regions = {}
    for index in range(int(sys.argv[2])):
        region = GstVideo.buffer_get_video_region_of_interest_meta_id(info.get_buffer(), index)
        if region is not None:
            values, box = region.get_param("taidpt"), [region.x, region.y, region.w, region.h]
            score, probability = (values.get_double(key) for key in ("score", "probability"))
            chance = probability[1] if probability[0] else None
            regions[index] = [values.get_string("tag"), box, score[1], chance]
    print(json.dumps(regions))
    return Gst.PadProbeReturn.OK

Gst.init(None)
pipeline = Gst.parse_launch(sys.argv[1])
pipeline.get_by_name("end").get_static_pad("sink").add_probe(Gst.PadProbeType.BUFFER, seen)
pipeline.set_state(Gst.State.PLAYING)
kinds = Gst.MessageType.EOS | Gst.MessageType.ERROR
message = pipeline.get_bus().timed_pop_filtered(60 * Gst.SECOND, kinds)
assert message and message.type == Gst.MessageType.EOS
pipeline.set_state(Gst.State.NULL)
"""
WIDTH = 130  # rows of 390 bytes, which GStreamer pads to 392
NODE = REPOSITORY / "examples" / "ros2" / "taidpt_node.py"


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lively")
    return tiny_bundle(folder / "lively.taidpt", TinySpec(thresholds=(1.0,)))


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return [colour_frame(index, width=WIDTH) for index in range(100)]


@pytest.fixture(scope="module")
def expected(lively: Path, frames: list[np.ndarray]) -> list[Event]:
    """The events of the same frames in a stream of ours, 25 a second."""
    with Tagger.load(lively, device="cpu") as tagger:
        moments = list(tagger.stream(iter(frames), fps=25))
    return [event for moment in moments for event in moment.events]


def pipeline(tmp_path: Path, bundle: Path, caps: str, reader: int | None = None) -> str:
    """Run the element in gst-launch, or in READER for a number of tags; what was printed."""
    probe = subprocess.run(
        [SYSTEM_PYTHON, "-c", PROBE], capture_output=True, text=True, check=False
    )
    loader = any(Path("/usr/lib").glob("*/gstreamer-1.0/libgstpython*"))
    there = probe.returncode == 0 and loader and shutil.which("gst-launch-1.0") is not None
    require("gst-python", there, "apt install python3-gst-1.0 gstreamer1.0-python3-plugin-loader")
    if probe.stdout.split() != [str(part) for part in sys.version_info[:2]]:
        pytest.skip("the system's Python cannot import the packages of this one")
    folder = Path(np.__file__).parents[1]
    elements = ["multifilesrc", f"location={tmp_path}/%03d.png", "caps=image/png,framerate=25/1"]
    elements += ["!", "pngdec", "!", "videoconvert", "!", caps, "!"]
    elements += ["taidpt_tagger", f"bundle={bundle}", "!", "fakesink", "name=end"]
    words = ["gst-launch-1.0", "-m", *elements]
    if reader is not None:
        words = [SYSTEM_PYTHON, "-c", READER, " ".join(elements), str(reader)]
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": f"{REPOSITORY}:{folder}",
        "GST_PLUGIN_PATH": str(REPOSITORY / "examples" / "gstreamer"),
        "GST_REGISTRY": str(tmp_path / "registry"),
    }
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=100, env=environment
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("layout", ["RGB", "BGR"])
def test_gstreamer_element_posts_the_events_of_a_stream(
    lively: Path, frames: list[np.ndarray], expected: list[Event], tmp_path: Path, layout: str
) -> None:
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{index:03d}.png", compress_level=1)
    text = pipeline(tmp_path, lively, f"video/x-raw,format={layout}")
    posted = re.findall(
        r"taidpt-event, tag=\(string\)(.+?), kind=\(string\)(\w+), time=\(double\)([\d.]+)", text
    )
    assert expected, "no tag goes on"
    found = [(re.sub(r"\\(.)", r"\1", tag.strip('"')), kind, float(at)) for tag, kind, at in posted]
    ours = [(event.tag, event.kind, event.time_s) for event in expected]
    assert [each[:2] for each in found] == [each[:2] for each in ours], text[-2000:]
    assert [each[2] for each in found] == pytest.approx([each[2] for each in ours])


def test_gstreamer_element_attaches_all_tags_that_are_on(
    frames: list[np.ndarray], tmp_path: Path
) -> None:
    bundle = tiny_bundle(tmp_path / "half.taidpt", TinySpec(thresholds=(0.2, 0.5)))
    loaded = Bundle.load(bundle)
    first, *others = loaded.manifest.tags
    mapped = dataclasses.replace(
        first,
        threshold=dataclasses.replace(first.threshold, source="calibrated"),
        probability={"scores": [-2.0, 2.0], "probabilities": [0.0, 1.0]},
    )
    loaded.with_manifest(dataclasses.replace(loaded.manifest, tags=(mapped, *others)))
    some = frames[:100:12]
    for index, frame in enumerate(some):
        Image.fromarray(frame).save(tmp_path / f"{index:03d}.png", compress_level=1)
    text = pipeline(tmp_path, bundle, "video/x-raw,format=RGB", len(loaded.names))
    found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    with Tagger.load(bundle, device="cpu") as tagger:
        results = [tagger(frame) for frame in some]
    assert len({len(result.on_tags) for result in results}) > 1
    box = [0, 0, WIDTH, len(frames[0])]
    for regions, result in zip(found, results, strict=True):
        expected = {
            str(loaded.names.index(tag.name)): [
                tag.name,
                box,
                pytest.approx(tag.score),
                None if tag.probability is None else pytest.approx(tag.probability),
            ]
            for tag in result.on_tags
        }
        assert regions == expected
    assert any("0" in regions for regions in found), "no probability was seen"


def test_gstreamer_element_names_a_bundle_that_is_not_there(tmp_path: Path) -> None:
    Image.fromarray(colour_frame(0)).save(tmp_path / "000.png")
    text = pipeline(tmp_path, tmp_path / "none.taidpt", "video/x-raw,format=RGB")
    assert re.search(r"ERROR: from element .*none\.taidpt", text), text
    assert "Traceback" not in text


def load_node(monkeypatch: pytest.MonkeyPatch, bundle: Path) -> Any:
    stub_rclpy.install(monkeypatch, bundle=str(bundle), device="cpu")
    specification = importlib.util.spec_from_file_location("taidpt_node", NODE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.TaidptNode()


def image(frame: np.ndarray, time_s: float, encoding: str, padding: int = 0) -> stub_rclpy.Image:
    """A message of a frame, its rows padded with ones."""
    pixels = frame[:, :, ::-1] if encoding == "bgr8" else frame
    rows = pixels.reshape(len(frame), -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=1)
    stamp = stub_rclpy.Stamp(int(time_s), round(time_s % 1 * 1e9))
    return stub_rclpy.Image(
        header=stub_rclpy.Header(stamp),
        height=frame.shape[0],
        width=frame.shape[1],
        encoding=encoding,
        step=padded.shape[1],
        data=padded.tobytes(),
    )


@pytest.mark.parametrize(("encoding", "padding"), [("rgb8", 0), ("bgr8", 6)])
def test_ros_node_publishes_the_events_of_a_stream(
    monkeypatch: pytest.MonkeyPatch,
    lively: Path,
    frames: list[np.ndarray],
    expected: list[Event],
    encoding: str,
    padding: int,
) -> None:
    node = load_node(monkeypatch, lively)
    for index, frame in enumerate(frames):
        node.callbacks["image"](image(frame, 100 + index / 25, encoding, padding))
    events = [json.loads(message.data) for message in node.topics["~/events"].published]
    assert [(event["tag"], event["kind"]) for event in events] == [
        (event.tag, event.kind) for event in expected
    ]
    times = [event["time_s"] - 100 for event in events]
    assert times == pytest.approx([event.time_s for event in expected], abs=1e-6)
    tags = [json.loads(message.data) for message in node.topics["~/tags"].published]
    assert len(tags) == len(frames)
    with Tagger.load(lively, device="cpu") as tagger:
        assert [tag["name"] for tag in tags[60]["on"]] == [tag.name for tag in tagger(frames[60])]
    node.destroy_node()


def test_ros_node_warns_once_of_images_it_cannot_use(
    monkeypatch: pytest.MonkeyPatch, lively: Path, frames: list[np.ndarray]
) -> None:
    node = load_node(monkeypatch, lively)
    for encoding in ("16UC1", "16UC1"):
        node.callbacks["image"](image(frames[0], 1.0, encoding))
    node.callbacks["image"](image(frames[0], 2.0, "rgb8"))
    for time_s in (1.5, 1.6):
        node.callbacks["image"](image(frames[0], time_s, "rgb8"))
    assert len(node.topics["~/tags"].published) == 1
    warnings = node.logger.lines[1:]
    assert len(warnings) == 2
    assert "16UC1; expected rgb8, bgr8, mono8" in warnings[0]
    grey = image(frames[0][:, :, :1], 3.0, "mono8")
    node.callbacks["image"](grey)
    assert len(node.topics["~/tags"].published) == 2


def test_ros_node_ends_with_one_line_without_its_bundle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stub_rclpy.install(monkeypatch, bundle=str(tmp_path / "none.taidpt"))
    with pytest.raises(SystemExit, match=r"^error: .*none\.taidpt"):
        runpy.run_path(str(NODE), run_name="__main__")
