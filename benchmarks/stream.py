"""A video through the tagger on one device: frames a second, and scores against the CPU's.

    python benchmarks/stream.py [--device cuda] [--bundle BUNDLE] [--resize decoder] [--repeats 3]

Decoding, inference of ready frames, and the whole stream take turns; each round gives the whole
stream's rate over its slower stage. Without --bundle RN50 with random weights is exported, on the
CPU the toy world's model; without --video 720p of moving noise is written. pipeline.py measures the
same on the CPU with one thread a stage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.harness import Left, NotRunError, Part, held, main, quantiles, work_folder
from benchmarks.pipeline import make_video, rate
from benchmarks.tagger_overhead import make_bundle
from taidpt.runtime import SourceOptions, Tagger, open_source
from taidpt.runtime.preprocess import RESIZES

# Frames that a round decodes, and tags: seconds on a CPU, enough on a GPU to fill its pipeline.
FRAMES = 60
# The share of the slower stage's rate that the whole stream is to reach.
TARGET = 0.9
# Scores are cosines times a scale, spread over about one unit: fp32 on both sides is this close.
SCORE_LIMIT = 1e-3


def material(options: argparse.Namespace) -> tuple[Path, Path]:
    """The bundle and the video, made once where none is named."""
    model = "toyworld" if options.device == "cpu" else "RN50-quickgelu"
    bundle = options.bundle or work_folder() / f"{model}.taidpt"
    if not bundle.exists():
        make_bundle(work_folder(), 80, model)
    video = options.video or work_folder() / "moving.mp4"
    return bundle, video if video.exists() else make_video(video)


def rates(options: argparse.Namespace, left: Left) -> dict[str, Any]:
    """Frames a second of decoding, of inference and of the whole stream."""
    bundle, video = material(options)
    with Tagger.load(bundle, device=options.device, resize=options.resize) as tagger:
        wanted = tagger.preprocess.source_options(SourceOptions())
        shape = (1, *tagger.bundle.manifest.input.frame_shape)
        ready = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

        def stream() -> int:
            with tagger.stream(open_source(video, wanted)) as moments:
                return sum(1 for _ in islice(moments, FRAMES))

        ways = {
            "decode": lambda: sum(1 for _ in islice(open_source(video, wanted), FRAMES)),
            "inference": lambda: sum(1 for _ in range(FRAMES) if tagger.backend.run(ready)),
            "whole stream": stream,
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        tagger.backend.run(ready)
        for _ in range(options.repeats):
            for name, way in ways.items():
                found[name].append(rate(way))
    columns = zip(found["whole stream"], found["decode"], found["inference"], strict=True)
    shares = [whole / min(decode, inference) for whole, decode, inference in columns]
    result: dict[str, Any] = {"device": str(tagger.device), "whole_over_slower": quantiles(shares)}
    result["frames_a_second"] = {name: max(values) for name, values in found.items()}
    middle = {"whole / slower stage": result["whole_over_slower"]["p50"]}
    return {**result, "targets": held(middle, ("whole / slower stage", ">=", TARGET))}


def parity(options: argparse.Namespace, left: Left) -> dict[str, Any]:
    """The largest difference of a score from the CPU's over the first frames, and tags flipped."""
    if options.device == "cpu":
        raise NotRunError("the CPU is what other devices are compared with")
    bundle, video = material(options)
    frames = [frame.image for frame in islice(open_source(video), FRAMES)]
    with (
        Tagger.load(bundle, device=options.device) as tagger,
        Tagger.load(bundle, device="cpu") as cpu,
    ):
        pairs = [(tagger.tag(frame), cpu.tag(frame)) for frame in frames]
    worst = max(float(np.abs(a.scores - b.scores).max()) for a, b in pairs)
    flipped = sum(int((a.on != b.on).sum()) for a, b in pairs)
    failed = [f"scores differ by {worst:.1e}"] if not worst <= SCORE_LIMIT else []
    return {"difference": worst, "flipped": flipped, "frames": len(pairs), "failed": failed}


def frames_on_the_gpu(options: argparse.Namespace, left: Left) -> dict[str, Any]:
    """Frames in PyTorch's GPU memory give what the same frames give from the host."""
    if options.device == "cpu":
        raise NotRunError("needs a GPU")
    import torch

    bundle, video = material(options)
    frames = np.stack([frame.image for frame in islice(open_source(video), 4)])
    with Tagger.load(bundle, device=options.device) as tagger:
        size = tagger.bundle.manifest.input.frame_shape[:2]
        ready = np.ascontiguousarray(frames[:, : size[0], : size[1]])
        on_gpu: Any = torch.from_numpy(ready).cuda()
        found, expected = (tagger.tag_batch(given).scores for given in (on_gpu, ready))
    worst = float(np.abs(found - expected).max())
    return {"difference": worst, "failed": [f"differ by {worst:.1e}"] * (worst > SCORE_LIMIT)}


def parts(options: argparse.Namespace) -> Iterator[Part]:
    """Whether the scores are right, then how fast they come."""
    yield Part("parity with the CPU", partial(parity, options))
    yield Part("frames on the GPU", partial(frames_on_the_gpu, options))
    yield Part("rates", partial(rates, options))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this program alone."""
    devices = ("cpu", "cuda", "tensorrt", "tensorrt-rtx")
    parser.add_argument("--device", choices=devices, default="cpu", help="[default: cpu]")
    parser.add_argument("--bundle", type=Path, help="instead of RN50 with random weights")
    parser.add_argument("--video", type=Path, help="instead of one that is written here")
    parser.add_argument("--resize", choices=RESIZES, default="exact", help="[default: exact]")
    parser.add_argument("--repeats", type=int, default=3, help="rounds [default: 3]")


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__ or "", "stream", lambda o: list(parts(o)), add_options))
