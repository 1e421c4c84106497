"""A bank as the engine's input: scores by number of tags, swaps, and swaps from another thread."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from banks import random_bank
from rtx_work import COUNTS, FLAVOUR, Work, differences, frames_of, open_pair, runner_of, timed

from taidpt.runtime import ClassBank, Tagger

__all__ = ["banks", "swaps", "threads"]

SWAPPED = 1000
TARGET_MS = 5.0
_THREADS_S = 2.0
# Scores are compared as they are after a swap: the same engine on the same numbers.
_SAME = 1e-5


def banks(work: Work) -> dict[str, Any]:
    """Bank as input: differences from ONNX Runtime, and the first frames, by number of tags."""
    engine, result = work.engine("input", "fp16")
    gpu, cpu = open_pair(engine, work.bundle("input"))
    with gpu, cpu:
        frames = frames_of(gpu.bundle, 4)
        result["by_tags"] = {}
        for count in COUNTS:
            bank = random_bank(gpu, count)
            cpu.use_bank(bank)
            swap = timed(partial(gpu.use_bank, bank))
            first = [timed(lambda: gpu.tag(frames[0])) for _ in range(5)]
            found, expected = gpu.tag_batch(frames).outputs, cpu.tag_batch(frames).outputs
            result["by_tags"][str(count)] = {
                "use_bank_ms": swap,
                "first_frames_ms": first,
                "difference": differences(found, expected),
            }
        result["uses_cuda_graphs"] = runner_of(gpu).uses_graphs
        result["too_many"] = _refusal(gpu, frames[0])
    return result


def _refusal(gpu: Tagger, frame: Any) -> str:
    """What more tags than the engine takes come to."""
    gpu.use_bank(random_bank(gpu, COUNTS[-1] + 1))
    try:
        gpu.tag(frame)
    except Exception as error:  # whatever it is, it is the result
        return f"{type(error).__name__}: {error}"[:300]
    return "taken"


def _other(bank: ClassBank) -> ClassBank:
    """The same rows the other way round, under other names."""
    return dataclasses.replace(
        bank,
        names=tuple(f"other {index}" for index in range(len(bank.names))),
        global_embeddings=bank.global_embeddings[::-1].copy(),
        local_embeddings=bank.local_embeddings[::-1].copy(),
    )


def swaps(work: Work) -> dict[str, Any]:
    """A bank of 1,000 tags swapped: to the same size, from a file, and to another size."""
    engine, result = work.engine("input", "fp16")
    path = work.folder / "site.bank"
    with Tagger.load(engine, device=FLAVOUR) as gpu:
        frame = frames_of(gpu.bundle, 1)[0]
        one = random_bank(gpu, SWAPPED)
        other, smaller = _other(one), random_bank(gpu, SWAPPED // 2)
        other.save(path)
        for bank in (one, other):
            gpu.use_bank(bank)
            for _ in range(3):
                gpu.tag(frame)
        result["ms"] = {
            "same size": _swap_ms(gpu, frame, (one, other)),
            "same size, from a file": _swap_ms(gpu, frame, (path,)),
            "another size": _swap_ms(gpu, frame, (one, smaller), repeats=6),
        }
        gpu.use_bank(other)
        after = gpu.tag(frame).scores
    with Tagger.load(engine, device=FLAVOUR) as fresh:
        fresh.use_bank(other)
        result["difference_from_a_fresh_tagger"] = float(
            np.abs(fresh.tag(frame).scores - after).max()
        )
    same = result["ms"]["same size"]
    result["targets"] = [
        {"what": f"{name} < {TARGET_MS:g} ms", "value": value, "met": value < TARGET_MS}
        for name, value in (
            ("use_bank", same["use_bank"]["p50"]),
            ("use_bank from a file", result["ms"]["same size, from a file"]["use_bank"]["p50"]),
            (
                "first frame after a swap, over an ordinary one",
                same["first frame over an ordinary"],
            ),
        )
    ]
    if result["difference_from_a_fresh_tagger"] > _SAME:
        result["failed"] = ["scores after a swap are not those of a fresh tagger"]
    return result


def _swap_ms(gpu: Tagger, frame: Any, given: tuple[Any, ...], repeats: int = 20) -> dict[str, Any]:
    """Milliseconds of the swap, of the first three frames after it, and of an ordinary one."""
    times: dict[str, list[float]] = {}
    for index in range(repeats):
        bank = given[index % len(given)]
        calls: list[tuple[str, Callable[[], Any]]] = [
            ("use_bank", partial(gpu.use_bank, bank)),
            *((f"frame {number} after it", lambda: gpu.tag(frame)) for number in (1, 2, 3)),
            ("an ordinary frame", lambda: gpu.tag(frame)),
        ]
        for name, call in calls:
            times.setdefault(name, []).append(timed(call))
    shown: dict[str, Any] = {
        name: {f"p{share}": float(np.percentile(values, share)) for share in (20, 50, 80)}
        for name, values in times.items()
    }
    ordinary = shown["an ordinary frame"]["p50"]
    shown["first frame over an ordinary"] = shown["frame 1 after it"]["p50"] - ordinary
    return shown


def threads(work: Work) -> dict[str, Any]:
    """A thread that does nothing but swap: each frame's scores are of the bank that it names."""
    engine, result = work.engine("input", "fp16")
    with Tagger.load(engine, device=FLAVOUR) as gpu:
        frame = frames_of(gpu.bundle, 1)[0]
        one = random_bank(gpu, SWAPPED)
        chosen = (one, _other(one), random_bank(gpu, SWAPPED // 2))
        expected = {}
        for bank in chosen:
            gpu.use_bank(bank)
            expected[bank.names] = [gpu.tag(frame).scores for _ in range(3)][-1]
        stop, swapped = threading.Event(), [0]

        def swap() -> None:
            while not stop.is_set():
                gpu.use_bank(chosen[swapped[0] % len(chosen)])
                swapped[0] += 1
                time.sleep(0.002)

        thread = threading.Thread(target=swap)
        thread.start()
        frames, mixed = 0, 0
        seen = dict.fromkeys(expected, 0)
        try:
            deadline = time.monotonic() + _THREADS_S
            while time.monotonic() < deadline:
                tagged = gpu.tag(frame)
                names = tagged.vocabulary.names
                mixed += not np.allclose(tagged.scores, expected[names], atol=_SAME, rtol=0)
                seen[names] += 1
                frames += 1
        finally:
            stop.set()
            thread.join()
    result |= {"swaps": swapped[0], "frames": frames, "by_bank": list(seen.values())}
    if mixed:
        result["failed"] = [f"{mixed} of {frames} frames have scores of another bank"]
    return result
