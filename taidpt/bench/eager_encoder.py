"""open_clip's image encoder as PyTorch runs it eagerly: what `taidpt bench` puts beside a bundle.

    python -m taidpt.bench.eager_encoder RN50-quickgelu 1,8 cpu THREADS SECONDS

A process of its own, so that the runtime loads no torch. The weights are random: they change the
values and not the time. Prints a JSON object: milliseconds a frame, medians, by batch size.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

__all__ = ["main", "measure"]

_LEAST_ROUNDS = 3


def measure(
    model: str, batches: list[int], device: str, threads: int, seconds: float
) -> dict[str, float]:
    """Median milliseconds a frame of each batch size.

    Args:
        model: an open_clip name, or "toyworld".
        batches: batch sizes.
        device: of torch, "cpu" or "cuda".
        threads: of torch; 0 leaves them to it.
        seconds: about how long to measure each batch size.
    """
    import torch

    from taidpt.clip.model import EMBEDDED_MODEL, load_clip

    if threads:
        torch.set_num_threads(threads)
    clip = load_clip(model, "embedded" if model == EMBEDDED_MODEL else "random")
    visual: Any = clip.model.visual
    visual.to(device)
    found = {}

    def encode(frames: torch.Tensor) -> None:
        visual(frames)
        if device == "cuda":
            torch.cuda.synchronize()

    for batch in batches:
        frames = torch.rand(batch, 3, clip.image_size, clip.image_size, device=device)
        times: list[float] = []
        with torch.inference_mode():
            encode(frames)
            end = time.perf_counter() + seconds
            while time.perf_counter() < end or len(times) < _LEAST_ROUNDS:
                begun = time.perf_counter()
                encode(frames)
                times.append((time.perf_counter() - begun) * 1e3)
        found[str(batch)] = statistics.median(times) / batch
    return found


def main(arguments: list[str]) -> None:
    """Measure as the arguments say and print."""
    model, batches, device, threads, seconds = arguments
    sizes = [int(part) for part in batches.split(",")]
    print(json.dumps(measure(model, sizes, device, int(threads), float(seconds))))


if __name__ == "__main__":
    main(sys.argv[1:])
