"""What skipping still frames saves, and what it does to the tags.

    taidpt demo -o build/demo
    python benchmarks/skip_still.py build/demo/toyworld.taidpt [--json FILE]

Two videos: the demo's, in which things drift and fade all the time, and a watched place: held-out
pictures of the toy world, four seconds each, with a sensor's noise of 2 grey levels, as H.264.
Each is tagged whole and with several thresholds; a frame's tags are those on in that frame alone,
the spans those of the timeline. The whole run and the thresholds are measured in one run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import numpy as np

from taidpt.runtime import Tagger
from taidpt.runtime.stream.stream import StreamSettings
from taidpt.toyworld import assets
from taidpt.toyworld.assets import load_heldout

LEVELS = (2.0, 4.0, 8.0, 16.0)
PICTURES, SECONDS, RATE, NOISE = 12, 4, 25, 2.0


def watched_place(path: Path) -> Path:
    """Pictures that stand still under noise, and change."""
    pictures, _, _ = load_heldout()
    generator = np.random.default_rng(0)
    height, width = (side // 2 * 2 for side in pictures[0].shape[:2])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for picture in pictures[:PICTURES]:
            clean = picture[:height, :width].astype(np.float32)
            for _ in range(SECONDS * RATE):
                noisy = clean + generator.normal(0, NOISE, clean.shape).astype(np.float32)
                pixels = np.clip(noisy, 0, 255).astype(np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def run(tagger: Tagger, video: Path, levels: float | None) -> dict[str, Any]:
    """One pass over a video."""
    begun = time.perf_counter()
    with tagger.stream(video, StreamSettings(skip_still=levels)) as stream:
        on = [moment.result.on for moment in stream]
        seconds = time.perf_counter() - begun
        spans = {(item.tag, round(item.start_s)) for item in stream.timeline()}
        counts = None if stream.stills is None else stream.stills.counts
    return {"seconds": seconds, "on": np.array(on), "spans": spans, "counts": counts}


def compare(whole: dict[str, Any], some: dict[str, Any]) -> dict[str, Any]:
    """The saving, and the tags and spans that differ from the whole run."""
    counts = some["counts"]
    changed = int((whole["on"] != some["on"]).sum())
    return {
        "tagged_share": 1 - counts.repeated / counts.frames,
        "speed_up": whole["seconds"] / some["seconds"],
        "tag_decisions": int(whole["on"].size),
        "tag_decisions_on": int(whole["on"].sum()),
        "tag_decisions_changed": changed,
        "spans": len(whole["spans"]),
        "spans_changed": len(whole["spans"] ^ some["spans"]),
        "as_reported": str(counts),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, dict[float, dict[str, Any]]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        Tagger.load(arguments.bundle, device="cpu", threads=1) as tagger,
    ):
        videos = {
            "watched place": watched_place(Path(folder) / "place.mp4"),
            "demo video": assets.path("demo.mp4"),
        }
        for name, video in videos.items():
            whole = run(tagger, video, None)
            rows = {levels: compare(whole, run(tagger, video, levels)) for levels in LEVELS}
            found[name] = rows
            print(f"{name}, {len(whole['on'])} frames of {len(tagger.names)} tags")
            head = f"{'levels':>8}{'tagged':>9}{'times as fast':>15}"
            print(head + f"{'on/off changed':>24}{'spans':>12}")
            for levels, row in rows.items():
                changed = f"{row['tag_decisions_changed']} ({row['tag_decisions_on']} on)"
                spans = f"{row['spans_changed']} of {row['spans']}"
                print(
                    f"{levels:>8g}{row['tagged_share']:>9.1%}{row['speed_up']:>15.2f}"
                    f"{changed:>24}{spans:>12}"
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
