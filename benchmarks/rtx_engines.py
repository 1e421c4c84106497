"""Bundles' engines through the runtime: scores against ONNX Runtime on the CPU, and times."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from banks import random_bank
from rtx_work import (
    COUNTS,
    FLAVOUR,
    TOP_K,
    Work,
    differences,
    frames_of,
    milliseconds,
    open_pair,
    runner_of,
    timed,
)

from taidpt.export.parity.reference_pictures import generated_pictures
from taidpt.runtime import Tagger

__all__ = ["best_of", "constant", "make_bundles", "tags"]

_REPEATS = 40


def make_bundles(work: Work) -> dict[str, Any]:
    """Bank constant, bank as input, and only the best scores out; seconds of each."""
    work.require_rtx()
    kinds = ("constant", "input", "best")
    return {"seconds": {kind: round(timed(partial(work.bundle, kind)) / 1e3, 2) for kind in kinds}}


def constant(work: Work, precision: str) -> dict[str, Any]:
    """Build, load, compare at several batches, time, and load again."""
    engine, result = work.engine("constant", precision)
    start = time.perf_counter()
    gpu, cpu = open_pair(engine, work.bundle("constant"))
    result["both_loaded_s"] = round(time.perf_counter() - start, 2)
    with gpu, cpu:
        result["device"] = str(gpu.device)
        frames = frames_of(gpu.bundle, 11)
        result["first_frames_ms"] = [timed(lambda: gpu.tag(frames[0])) for _ in range(5)]
        # 11 goes in two parts, the engine's most being 8
        result["difference_by_batch"] = {
            str(count): differences(
                gpu.backend.run(frames[:count]), cpu.backend.run(frames[:count])
            )
            for count in (1, 3, 8, 11)
        }
        # random weights spread scores little: what a difference is to be held against
        result["spread_of_scores"] = float(cpu.backend.run(frames)["scores"].std())
        result["uses_cuda_graphs"] = runner_of(gpu).uses_graphs
        result["frames_on_the_gpu"] = _frames_on_the_gpu(gpu, frames[:3])
        result["ms"] = _latency(gpu, cpu, frames)
        expected = gpu.backend.run(frames[:1])
    result["loaded_again"] = _load_again(engine, frames[:1], expected)
    return result


def _load_again(engine: Any, frames: Any, expected: Any) -> dict[str, Any]:
    found: list[Tagger] = []
    seconds = timed(lambda: found.append(Tagger.load(engine, device=FLAVOUR))) / 1e3
    with found[0] as again:
        first = timed(lambda: again.backend.run(frames))
        largest = differences(again.backend.run(frames), expected)
    return {"load_s": round(seconds, 2), "first_run_ms": first, "difference": largest}


def _frames_on_the_gpu(gpu: Tagger, frames: Any) -> dict[str, float]:
    """Frames that lie in PyTorch's memory against the same from the host."""
    on_gpu: Any = torch.from_numpy(frames).cuda()
    return differences(gpu.tag_batch(on_gpu).outputs, gpu.tag_batch(frames).outputs)


def _latency(gpu: Tagger, cpu: Tagger, frames: Any) -> dict[str, Any]:
    sides: dict[str, Callable[[], Any]] = {
        "engine with copies": _engine_alone(gpu, frames[:1]),
        "backend": lambda: gpu.backend.run(frames[:1]),
        "tagger": lambda: gpu.tag(frames[0]).tags,
    }
    large = np.resize(frames[0], (1080, 1920, 3))
    return {
        "batch 1": milliseconds(sides, _REPEATS),
        "batch 8": milliseconds({"backend": lambda: gpu.backend.run(frames[:8])}, _REPEATS),
        "1080p": milliseconds({"tagger": lambda: gpu.tag(large).tags}, _REPEATS // 2),
        "onnxruntime on the CPU": milliseconds({"tagger": lambda: cpu.tag(frames[0]).tags}, 5),
    }


def _engine_alone(gpu: Tagger, frames: Any) -> Callable[[], None]:
    """What the backend puts into its stream for one frame, and the wait for it; no NumPy."""
    for _ in range(3):
        gpu.backend.run(frames)
    runner = runner_of(gpu)
    lane = runner._lanes[1, runner._own_frames]

    def work() -> None:
        if lane.graph is None:
            runner._enqueue(lane, 1, runner._own_frames)
        else:
            runner._cuda.launch(lane.graph, runner._stream)
        runner._cuda.wait(runner._stream)

    return work


def best_of(work: Work) -> dict[str, Any]:
    """All scores coming out against the best K, in turn, by number of tags."""
    everything, built = work.engine("input", "fp16")
    best, built_best = work.engine("best", "fp16")
    result: dict[str, Any] = {"engines": [built, built_best], "top_k": TOP_K, "by_tags": {}}
    with (
        Tagger.load(everything, device=FLAVOUR) as whole,
        Tagger.load(best, device=FLAVOUR) as few,
    ):
        frame = frames_of(whole.bundle, 1)[0]
        for count in COUNTS:
            bank = random_bank(whole, count)
            for tagger in (whole, few):
                tagger.use_bank(bank)
            entry = milliseconds(
                {"all": lambda: whole.tag(frame), "best": lambda: few.tag(frame)}, _REPEATS
            )
            order = [[tag.name for tag in t.tag(frame).top(TOP_K)] for t in (whole, few)]
            entry["same best"] = order[0] == order[1]
            result["by_tags"][str(count)] = entry
    return result


def tags(work: Work) -> dict[str, Any]:
    """The tags that are on, by the engine and by ONNX Runtime on the CPU."""
    pictures = [picture.pixels for picture in generated_pictures(224)]
    return {precision: _tags_agree(work, precision, pictures) for precision in ("fp32", "fp16")}


def _tags_agree(work: Work, precision: str, pictures: list[Any]) -> dict[str, Any]:
    engine, _ = work.engine("constant", precision)
    gpu, cpu = open_pair(engine, work.bundle("constant"))
    with gpu, cpu:
        scores = cpu.tag_batch(pictures).scores
        # random weights spread scores little: about half of the tags are on at the median
        on = float(np.median(scores))
        sides = [tagger.with_threshold(on) for tagger in (gpu, cpu)]
        found, expected = ([tagger.tag(pixels) for pixels in pictures] for tagger in sides)
    differ = [np.abs(a.scores - b.scores) for a, b in zip(found, expected, strict=True)]
    flipped = [a.on != b.on for a, b in zip(found, expected, strict=True)]
    worst = float(max(values.max() for values in differ))
    # a tag may only be on here and off there where its score is that near to the threshold
    near = [np.abs(b.scores - on) <= worst for b in expected]
    wrong = sum(int((flip & ~close).sum()) for flip, close in zip(flipped, near, strict=True))
    return {
        "pictures": len(pictures),
        "decisions": int(scores.size),
        "decided_otherwise": int(sum(flip.sum() for flip in flipped)),
        "of_these_not_at_the_threshold": wrong,
        "same_best_tag": sum(
            a.top(1)[0].name == b.top(1)[0].name for a, b in zip(found, expected, strict=True)
        ),
        "largest_score_difference": worst,
        "spread_of_scores": float(scores.std()),
    }
