"""A million hours of recordings: rates of one core, what they cost, and a simulated fleet.

    python benchmarks/archive_scale.py rates            # measures; writes RATES
    python benchmarks/archive_scale.py page --write     # docs/scale.md from RATES
    python benchmarks/archive_scale.py simulate         # 100,000 shards, 1,000 workers

Rates are CPU time of one worker with one thread, so other programs of a shared machine do not add
to it: a 720p video of moving noise at 30 frames a second, RN50 with random weights, 80 tags.
Prices and the number of cores are options, and examples.

The simulation runs the code of `taidpt archive` (the plan, the names of shards, handing out, the
record of what is whole) on invented clips. A worker is a virtual clock; the time that the program
itself takes is real. Parts are empty files: the workers write those, and `rates` has their cost.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.harness import RESULTS, ROOT, marked
from taidpt.runtime import SourceOptions, Tagger, open_source
from taidpt.runtime.archive.features import encode_features
from taidpt.runtime.archive.folder import ArchiveFolder, PartWriter
from taidpt.runtime.archive.inputs import Clip, Shard
from taidpt.runtime.archive.job import plan, shard_results
from taidpt.runtime.archive.rows import FrameRows, RowMaker
from taidpt.runtime.archive.schema import TABLES, FeatureLayout
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.bundle.manifest import Manifest

RATES = RESULTS / "archive-rates.json"
DOCUMENT = ROOT / "docs" / "scale.md"
TAGS = 80
KINDS = ("none", "global", "patches-int8")
# Frames of a second of video that are tagged.
FPS = (1, 5, 25)
VIDEO_FPS = 25
# An hour of a camera at 3.5 Mbit/s has 1.6 GB, which is two shards.
SHARDS_AN_HOUR = 1.6
MILLION = 1_000_000
IDENTITY: dict[str, Any] = {
    "bundle": {"name": "street.taidpt", "sha256": "0" * 64},
    "bank": None,
    "options": {"features": "none", "smoothing_s": 0.3, "min_on_s": 0.2, "min_off_s": 0.5},
}


def main() -> None:
    """Parse the command line and run one part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(required=True)
    rates = parts.add_parser("rates")
    rates.add_argument("--model", default="RN50-quickgelu")
    rates.add_argument("--device", default="cpu")
    rates.add_argument("-o", "--output", type=Path, default=RATES)
    rates.set_defaults(run=measure)
    page = parts.add_parser("page")
    page.add_argument("--rates", type=Path, default=RATES)
    page.add_argument("--core-hour", type=float, default=0.04, help="price of a core for an hour")
    page.add_argument("--cores", type=int, default=1000)
    page.add_argument("--terabyte-month", type=float, default=20.0, help="price of storage")
    page.add_argument("--write", action="store_true")
    page.set_defaults(run=print_page)
    fleet = parts.add_parser("simulate")
    fleet.add_argument("--shards", type=int, default=100_000)
    fleet.add_argument("--clips", type=int, default=2, help="clips of a shard")
    fleet.add_argument("--failing", type=float, default=0.01, help="share of tries that are lost")
    fleet.add_argument("--workers", type=int, default=1000)
    fleet.set_defaults(run=simulate)
    options = parser.parse_args()
    options.run(options)


# Rates


def measure(options: argparse.Namespace) -> None:
    """Measure the rates of one core and store them."""
    from benchmarks.pipeline import FRAMES, make_video
    from benchmarks.tagger_overhead import make_bundle

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bundle, video = make_bundle(folder, TAGS, options.model), make_video(folder / "noise.mp4")
        decode_s = cpu_seconds(lambda: read(video, 1.0)) / FRAMES
        convert_s = cpu_seconds(lambda: read(video, None)) / FRAMES - decode_s
        with Tagger.load(bundle, device=options.device, threads=1) as tagger:
            frames = [frame.image for frame in itertools.islice(open_source(str(video)), 20)]
            infer_s = cpu_seconds(lambda: [tagger(frame) for frame in frames]) / len(frames)
        found = {
            "machine": processor(),
            "date": time.strftime("%Y-%m-%d"),
            "model": options.model,
            "device": options.device,
            "decode_ms": 1e3 * decode_s,
            "inference_ms": 1e3 * (convert_s + infer_s),
            "write": {kind: write_cost(folder, bundle, kind) for kind in KINDS},
            "shard_ms": 1e3 * shard_cost(folder, bundle),
        }
    options.output.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def read(video: Path, max_fps: float | None) -> int:
    """Decode a video; with a low rate hardly a frame is converted."""
    options = SourceOptions(max_fps=max_fps, decoder="software")
    with open_source(str(video), options) as source:
        return sum(1 for _ in source)


def write_cost(folder: Path, bundle: Path, kind: str) -> dict[str, float]:
    """Milliseconds and bytes of a frame's row."""
    count, batch = 512, 256
    manifest = Bundle.load(bundle).manifest
    layout = FeatureLayout(kind, manifest.global_shape, manifest.patches)
    rows, generator = RowMaker(layout, 10), np.random.default_rng(0)
    vocabulary = Tagger.load(bundle, device="cpu").vocabulary
    patches = generator.normal(size=(count, layout.patches, layout.dim)).astype(np.float32)
    scores = generator.normal(size=(count, TAGS)).astype(np.float32)
    whole = generator.normal(size=(count, *layout.global_shape)).astype(np.float32)

    def write() -> None:
        with (
            new_archive(folder / f"write-{kind}", bundle) as archive,
            PartWriter(archive, "one", rows.schemas) as writer,
        ):
            for start in range(0, count, batch):
                places = range(start, start + batch)
                waiting = FrameRows(list(places), [p / 5 for p in places], list(scores[places]))
                if kind != "none":
                    waiting.features = [
                        encode_features(whole[p], patches[p], layout) for p in places
                    ]
                writer.write("frames", rows.frames("/in/gate.mp4", waiting, vocabulary))

    cost_s = cpu_seconds(write) / count
    size = (folder / f"write-{kind}" / "frames" / "one.parquet").stat().st_size
    return {"ms": 1e3 * cost_s, "bytes": size / count}


def shard_cost(folder: Path, bundle: Path) -> float:
    """Seconds of CPU time for the four parts of a shard without rows."""
    rows = RowMaker(FeatureLayout("none", (4,), 1), 10)
    with new_archive(folder / "shards", bundle) as archive:

        def write() -> None:
            for index in range(200):
                with PartWriter(archive, f"{index}", rows.schemas):
                    pass

        return cpu_seconds(write) / 200


def new_archive(folder: Path, bundle: Path) -> Any:
    """An archive to write to."""
    return ArchiveFolder.writing(folder, IDENTITY, Bundle.load(bundle).manifest)


def cpu_seconds(work: Callable[[], Any], times: int = 3) -> float:
    """CPU time of this process in a call, the median of some."""
    found = []
    for _ in range(times):
        begun = time.process_time()
        work()
        found.append(time.process_time() - begun)
    return statistics.median(found)


def processor() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


# The page


def print_page(options: argparse.Namespace) -> None:
    """Print the tables of docs/scale.md; with --write put them there."""
    rates = json.loads(options.rates.read_text())
    tables = {"cost": cost_table(rates, options), "storage": storage_table(rates, options)}
    page = DOCUMENT.read_text("utf-8") if options.write else ""
    for name, text in tables.items():
        print(text)
        if options.write:
            begin, end = (
                f"<!-- {name}: benchmarks/archive_scale.py -->\n",
                f"<!-- end of {name} -->\n",
            )
            page = marked(page, begin, end, text)
    if options.write:
        DOCUMENT.write_text(page, "utf-8")


def cost_table(rates: dict[str, Any], options: argparse.Namespace) -> str:
    """Core seconds of an hour of video by stage, and of a million hours in time and money."""
    columns = ("`--max-fps`", "decode", "inference", "write", "bottleneck", "core-hours of 10⁶ h")
    columns += (f"days on {options.cores:,} cores", f"at {options.core_hour:g} a core-hour")
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    for fps in FPS:
        shards_s = rates["shard_ms"] * SHARDS_AN_HOUR / 1e3
        stages = {
            "decode": 3.6 * VIDEO_FPS * rates["decode_ms"],
            "inference": 3.6 * fps * rates["inference_ms"],
            "write": 3.6 * fps * rates["write"]["none"]["ms"] + shards_s,
        }
        total_s = sum(stages.values())
        hours = MILLION * total_s / 3600
        slowest = max(stages, key=lambda name: stages[name])
        cells = [
            str(fps),
            *(f"{seconds:,.{0 if seconds > 9 else 2}f} s" for seconds in stages.values()),
        ]
        cells += [f"{slowest} ({100 * stages[slowest] / total_s:.0f} %)", f"{hours:,.0f}"]
        cells += [f"{hours / 24 / options.cores:,.0f}", f"{hours * options.core_hour:,.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def storage_table(rates: dict[str, Any], options: argparse.Namespace) -> str:
    """Bytes of a million hours at one frame a second, by features."""
    columns = ("`--features`", "bytes a frame", "write, ms a frame", "10⁶ h at 1 frame/s")
    columns += (f"a month at {options.terabyte_month:g} a TB",)
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    for kind, cost in rates["write"].items():
        terabytes = MILLION * 3600 * cost["bytes"] / 1e12
        cells = [f"`{kind}`", f"{cost['bytes']:,.0f}", f"{cost['ms']:.2f}", f"{terabytes:,.1f} TB"]
        cells.append(f"{terabytes * options.terabyte_month:,.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


# The simulation


@dataclass(order=True)
class _Try:
    """A shard on a worker, by the hour at which it is whole."""

    end_h: float
    number: int
    work: Callable[[], Any]
    future: Future[Any]


class VirtualWorkers(Executor):
    """Workers with clocks of their own: the shard that ends first is done first.

    Durations are log-normal with a median of an hour; one in a hundred takes ten times as long. A
    try that is lost ends somewhere before its end, and another worker begins the shard anew.
    """

    def __init__(self, workers: int, failing: float) -> None:
        self.most = 2 * workers
        self._free_h = [0.0] * workers
        self._failing = failing
        self._random = np.random.default_rng(11)
        self._running: list[_Try] = []
        self._numbers = itertools.count()
        self.lost = 0
        self.busy_h = self.end_h = 0.0

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        """Give a shard to the worker that is free first."""
        future: Future[Any] = Future()
        duration_h = float(self._random.lognormal(0, 0.5))
        if self._random.random() < 0.01:
            duration_h *= 10
        while self._random.random() < self._failing:
            self.lost += 1
            self._use(duration_h * float(self._random.random()))
        end_h = self._use(duration_h)
        entry = _Try(end_h, next(self._numbers), lambda: work(*arguments), future)
        heapq.heappush(self._running, entry)
        if len(self._running) == self.most:
            self._finish()
        return future

    def _use(self, duration_h: float) -> float:
        end_h = heapq.heappop(self._free_h) + duration_h
        heapq.heappush(self._free_h, end_h)
        self.busy_h += duration_h
        return end_h

    def _finish(self) -> None:
        entry = heapq.heappop(self._running)
        self.end_h = max(self.end_h, entry.end_h)
        entry.future.set_result(entry.work())

    def then_wait(self, shards: Sequence[Shard]) -> Iterator[Shard]:
        """The shards; behind the last one all that still run are waited for."""
        yield from shards
        while self._running:
            self._finish()


def simulate(options: argparse.Namespace) -> None:
    """Plan, run half, kill, plan again, run the rest; print times, memory and what was repeated."""
    with tempfile.TemporaryDirectory() as scratch:
        manifest = small_manifest(Path(scratch))
        before = peak_gib()
        found = invented_clips(options.shards * options.clips)
        timings: list[tuple[str, Any]] = []
        whole: set[str] = set()
        for name, share in (("new archive", 0.5), ("after the kill", 1.0)):
            watch = Stopwatch()
            with ArchiveFolder.writing(Path(scratch, "tags"), IDENTITY, manifest) as archive:
                shards = plan(archive, found, IDENTITY, options.clips)
                timings.append((f"plan of {len(shards):,} shards, {name}", watch.read()))
                repeated = len(whole & {shard.name for shard in shards})
                workers = VirtualWorkers(options.workers, options.failing)
                recorder = Recorder(archive)
                watch = Stopwatch()
                results = shard_results(
                    workers, recorder.record, workers.then_wait(shards), workers.most
                )
                for _ in itertools.islice(results, int(share * len(shards))):
                    pass
                results.close()  # type: ignore[attr-defined]
                timings.append((f"handing out, {name}", watch.read() - recorder.spent))
                whole = set(archive.shards())
    print(f"{len(found):,} clips, {options.workers:,} workers; {len(whole):,} shards are whole")
    print(f"after the kill: {repeated} whole shards tagged again, {workers.lost} tries lost")
    used = workers.busy_h / options.workers / workers.end_h
    print(
        f"virtual time after the kill: {workers.end_h:.1f} h, workers busy for {100 * used:.0f} %"
    )
    timings.append(("in all (goal: under 60)", sum(times for _, times in timings)))
    print("CPU s, wall s")
    for name, (cpu_s, wall_s) in timings:
        print(f"{cpu_s:6.1f} {wall_s:6.1f}  {name}")
    print(f"{peak_gib():.2f} GiB of memory at most, {before:.2f} before the clips (goal: under 1)")


class Stopwatch:
    """CPU time and wall time since it was made, in seconds."""

    def __init__(self) -> None:
        self._begun = self._now()

    def read(self) -> Any:
        """Both so far, [2]."""
        return self._now() - self._begun

    def _now(self) -> Any:
        return np.array([time.process_time(), time.perf_counter()])


def peak_gib() -> float:
    """The largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


class Recorder:
    """What a worker leaves of a shard that is whole, as empty files; its time is the worker's."""

    def __init__(self, archive: ArchiveFolder) -> None:
        self._archive = archive
        self.spent = np.zeros(2)

    def record(self, shard: Shard) -> str:
        """Make the parts of a shard; gives its name."""
        watch = Stopwatch()
        for table in TABLES:
            self._archive.part(table, shard.name).touch()
        self.spent += watch.read()
        return shard.name


def invented_clips(count: int) -> list[Clip]:
    """Clips of 500 cameras."""
    names = (
        f"/archive/camera-{number % 500:04d}/2026/{number // 500:06d}.mp4"
        for number in range(count)
    )
    return sorted(Clip(name, name, 600_000_000 + len(name), 10**18) for name in names)


def small_manifest(folder: Path) -> Manifest:
    """The manifest of a small bundle, made in a process whose memory does not count."""
    path = str(folder / "a.taidpt")
    code = "import sys; from tests.runtime.tiny import *; from pathlib import Path; "
    code += "tiny_bundle(Path(sys.argv[1]), TinySpec())"
    subprocess.run([sys.executable, "-c", code, path], check=True, cwd=ROOT)
    return Manifest.from_bytes(Path(path, "manifest.json").read_bytes(), path)


if __name__ == "__main__":
    main()
