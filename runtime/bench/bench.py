"""`taidpt bench`: speed of a bundle on this machine, alone and in a stream."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from taidpt.runtime.bench.baseline import Baseline, open_baseline
from taidpt.runtime.bundle.input_spec import InputSpec
from taidpt.runtime.errors import InputError
from taidpt.runtime.measuring.power import PowerMeter
from taidpt.runtime.measuring.profile import Profile, percentile_lines
from taidpt.runtime.preprocess.preprocessor import U8Array
from taidpt.runtime.sources.base import Frame, Source
from taidpt.runtime.storage.outputs import refuse_unwritable, write_json
from taidpt.runtime.stream.stream import Stream, StreamSettings
from taidpt.runtime.tagger.tagger import Tagger

__all__ = ["BenchRow", "SyntheticSource", "bench_lines", "bench_report", "run_bench"]

FRAME_SIZES = {"720p": (720, 1280), "1080p": (1080, 1920)}
# The first run of a shape allocates and the second one is at full speed. A median of fewer than
# five rounds follows single outliers.
_WARM_UP, _LEAST_ROUNDS = 2, 5


@dataclass(frozen=True)
class BenchRow:
    """One batch size: median milliseconds a frame, and frames a second of a whole stream.

    Attributes:
        batch: frames in one run.
        bare_ms: the baseline, on frames of the model's size.
        tagger_ms: the tagger on the same frames.
        by_size_ms: the tagger on larger frames, which it also resizes; empty if the graph resizes.
        stream_fps: a stream of 720p frames, or of the graph's own size if the graph resizes.
        stages_ms: p50, p95 and p99 of the stream's stages.
    """

    batch: int
    bare_ms: float
    tagger_ms: float
    by_size_ms: dict[str, float]
    stream_fps: float
    stages_ms: dict[str, tuple[float, float, float]]

    @property
    def ratio(self) -> float:
        """Time of the tagger divided by the time of the baseline."""
        return self.tagger_ms / self.bare_ms


class SyntheticSource(Source):
    """A few frames from memory, repeated, with times at a given rate."""

    def __init__(self, shape: tuple[int, ...], count: int, fps: float = 30.0) -> None:
        self.name = f"synthetic {shape[1]}x{shape[0]}"
        self.total = count
        self._fps = fps
        self._pictures = _frames(4, shape)

    def frames(self) -> Iterator[Frame]:
        """Yield `count` frames."""
        pictures = itertools.islice(itertools.cycle(self._pictures), self.total)
        for index, picture in enumerate(pictures):
            yield Frame(picture, index / self._fps, index, self.name)


def run_bench(
    tagger: Tagger, baseline: Baseline, batches: Sequence[int], seconds: float = 2.0
) -> list[BenchRow]:
    """Measure a tagger; the variants take turns, so that a slow moment affects all of them.

    Args:
        tagger: an open bundle.
        baseline: what it is compared with.
        batches: batch sizes to sweep.
        seconds: approximate time for each batch size.
    Raises:
        InputError: a batch size or the time is not positive.
    """
    if not batches or min(batches) < 1 or seconds <= 0:
        raise InputError("bench needs batch sizes of at least 1, and a time above 0")
    return [_bench_batch(tagger, baseline, batch, seconds) for batch in batches]


def _bench_batch(tagger: Tagger, baseline: Baseline, batch: int, seconds: float) -> BenchRow:
    spec = tagger.bundle.manifest.input
    ready = np.stack(_frames(batch, spec.frame_shape))
    variants: dict[str, Callable[[], object]] = {
        "bare": lambda: baseline.run(ready),
        "tagger": lambda: tagger.tag_batch(ready),
    }
    shapes = _shapes(spec)
    for name, shape in shapes.items():
        frames = _frames(batch, shape)
        variants[name] = lambda frames=frames: tagger.tag_batch(frames)  # type: ignore[misc]
    medians = {name: ms / batch for name, ms in _alternate(variants, seconds).items()}
    stream_fps, profile = _run_stream(tagger, batch, medians[next(iter(shapes), "tagger")], seconds)
    return BenchRow(
        batch=batch,
        bare_ms=medians["bare"],
        tagger_ms=medians["tagger"],
        by_size_ms={name: medians[name] for name in shapes},
        stream_fps=stream_fps,
        stages_ms=profile.percentiles(),
    )


def _shapes(spec: InputSpec) -> dict[str, tuple[int, ...]]:
    """Larger frame shapes by name; none if the graph takes a single size."""
    if spec.baked_resize is not None:
        return {}
    return {name: (height, width, 3) for name, (height, width) in FRAME_SIZES.items()}


def _alternate(variants: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Median milliseconds of each variant."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(_WARM_UP):
        for way in variants.values():
            way()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["bare"]) < _LEAST_ROUNDS:
        for name, way in variants.items():
            way()  # untimed: the threads of the previous session still spin for a moment
            begun = time.perf_counter()
            way()
            times[name].append((time.perf_counter() - begun) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def _run_stream(
    tagger: Tagger, batch: int, frame_ms: float, seconds: float
) -> tuple[float, Profile]:
    spec = tagger.bundle.manifest.input
    shape = next(iter(_shapes(spec).values()), spec.frame_shape)
    count = max(int(seconds * 1e3 / max(frame_ms, 1e-3)), 4 * batch)
    source = SyntheticSource(shape, count)
    begun = time.perf_counter()
    with Stream(tagger, source, StreamSettings(batch=batch)) as stream:
        done = sum(1 for _ in stream)
    return done / (time.perf_counter() - begun), stream.profile


def measure_eager(
    tagger: Tagger, batches: Sequence[int], threads: int | None, seconds: float
) -> dict[int, float] | str:
    """Time open_clip's image encoder in eager PyTorch, in another process.

    Returns:
        Milliseconds a frame by batch size, or the reason for their absence.
    """
    for module in ("torch", "open_clip"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed"
    device = "cpu" if tagger.device.name == "cpu" else "cuda"
    sizes = ",".join(map(str, batches))
    arguments = [tagger.bundle.manifest.model.name, sizes, device, str(threads or 0), str(seconds)]
    command = [sys.executable, "-m", "taidpt.bench.eager_encoder", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["it failed"])[-1]
    found: dict[str, float] = json.loads(done.stdout)  # noqa: TID251
    return {int(batch): ms for batch, ms in found.items()}


def bench_lines(
    tagger: Tagger,
    baseline: Baseline,
    rows: Sequence[BenchRow],
    eager_ms: dict[int, float] | str | None = None,
) -> list[str]:
    """The report as text: the sweep, and the stages of the last row's stream."""
    shapes = _shapes(tagger.bundle.manifest.input)
    sizes = "".join(f"{name + ' ms':>11}" for name in shapes)
    streamed = next(iter(shapes), "one-size")
    model = tagger.bundle.manifest.model.name
    lines = [
        f"{tagger.bundle.path.name}: {model}, {len(tagger.names)} tags",
        f"device {tagger.device}",
        f"bare is {baseline.what}",
        f"milliseconds a frame, medians; frames a second of a {streamed} stream",
        f"{'batch':>5}{'bare ms':>11}{'tagger ms':>11}{'ratio':>8}{sizes}{'stream/s':>10}",
    ]
    for row in rows:
        larger = "".join(f"{ms:>11.2f}" for ms in row.by_size_ms.values())
        lines.append(
            f"{row.batch:>5}{row.bare_ms:>11.2f}{row.tagger_ms:>11.2f}{row.ratio:>8.3f}{larger}"
            f"{row.stream_fps:>10.1f}"
        )
    if isinstance(eager_ms, dict):
        view = tagger.bundle.manifest.input.view
        square = ", on its square input" if view.kind in ("wide", "tiles") else ""
        lines += [
            f"open_clip eager, batch {row.batch}{square}: {eager_ms[row.batch]:.2f} ms a frame, "
            f"{eager_ms[row.batch] / row.tagger_ms:.2f} times the tagger's"
            for row in rows
        ]
    elif eager_ms is not None:
        lines.append(f"open_clip eager: not compared, {eager_ms}")
    lines.append(f"stages of the stream at batch {rows[-1].batch}")
    return lines + percentile_lines(rows[-1].stages_ms)


def bench_report(
    tagger: Tagger,
    baseline: Baseline,
    rows: Sequence[BenchRow],
    eager_ms: dict[int, float] | str | None = None,
) -> dict[str, Any]:
    """The report as JSON values, with what a later comparison needs."""
    return {
        "bundle": tagger.bundle.path.name,
        "model": tagger.bundle.manifest.model.to_json(),
        "tags": len(tagger.names),
        "backend": tagger.device.backend,
        "device": tagger.device.name,
        "passed_over": dict(tagger.device.passed_over),
        "machine": platform.machine(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "bare": baseline.what,
        "open_clip_eager_ms": eager_ms,
        "rows": [{**asdict(row), "ratio": row.ratio} for row in rows],
    }


def bench_command(
    bundle: str, batches: Sequence[int], seconds: float, target: str | None, **options: Any
) -> None:
    """Open, measure, and print, or write JSON to a file or to "-", standard output."""
    refuse_unwritable(target)
    with Tagger.load(bundle, **options) as tagger:
        baseline = open_baseline(tagger)
        with PowerMeter() as meter:
            rows = run_bench(tagger, baseline, batches, seconds)
        eager_ms = measure_eager(tagger, batches, options.get("threads"), seconds)
        if target != "-":
            print("\n".join([*bench_lines(tagger, baseline, rows, eager_ms), *meter.lines()]))
        write_json(target, bench_report(tagger, baseline, rows, eager_ms))


def _frames(count: int, shape: tuple[int, ...]) -> list[U8Array]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, shape, dtype=np.uint8) for _ in range(count)]
