"""Times open_clip's image encoder in eager PyTorch, which `taidpt bench` compares with a bundle.

    python -m taidpt.bench.eager_encoder RN50-quickgelu 1,8 cpu THREADS SECONDS

Runs in its own process, so that the runtime loads no torch. The weights are random, which does not
change the time. Prints a JSON object: median milliseconds per frame, by batch size.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

__all__ = ["main", "measure"]

_LEAST_ROUNDS = 3  # the fewest of which a median is not simply the slowest or the fastest


def measure(
    model: str, batches: list[int], device: str, threads: int, seconds: float
) -> dict[str, float]:
    """Median milliseconds per frame for each batch size.

    Args:
        model: an open_clip name, or "toyworld".
        batches: batch sizes.
        device: torch's device, "cpu" or "cuda".
        threads: torch's CPU threads; 0 for its default.
        seconds: approximate time per batch size.
    """
    import torch

    from taidpt.clip.model import EMBEDDED_MODEL, load_clip

    if threads:
        torch.set_num_threads(threads)
    clip = load_clip(model, None if model == EMBEDDED_MODEL else "random")
    visual: Any = clip.model.visual
    visual.to(device)
    medians = {}

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
        medians[str(batch)] = statistics.median(times) / batch
    return medians


def main(arguments: list[str]) -> None:
    """Measure with the command line's arguments and print the result."""
    model, batches, device, threads, seconds = arguments
    sizes = [int(part) for part in batches.split(",")]
    print(json.dumps(measure(model, sizes, device, int(threads), float(seconds))))


if __name__ == "__main__":
    main(sys.argv[1:])
