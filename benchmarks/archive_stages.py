"""What separate stages cost: `taidpt archive --ray` beside a worker process of one machine.

    python benchmarks/archive_stages.py

CPU time of all processes, Ray's own included, for each further frame: what a long run costs,
without starts. A 720p video of moving noise, one decoder and one graph with one thread (--model:
others of open_clip, or toyworld). Both ways take turns, best on a quiet machine: Ray's own
processes and its loop in the command take time every second, however many workers there are.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.pipeline import FRAMES, make_video
from benchmarks.tagger_overhead import make_bundle
from tests.runtime.archive.ray_cluster import ray_cluster

TAGS = 80
CLIPS = 1, 4
WAYS = "one worker", "separate stages"
WATCH_S = 0.1
_PR_SET_CHILD_SUBREAPER = 36  # from linux/prctl.h


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="RN50-quickgelu")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    # processes that Ray leaves behind become children of this one, so that their time is counted
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bundle, video = make_bundle(folder, TAGS, options.model), make_video(folder / "moving.mp4")
        for count in CLIPS:
            (folder / f"{count}").mkdir()
            for index in range(count):
                (folder / f"{count}" / f"{index}.mp4").symlink_to(video)
        found: dict[str, list[float]] = {name: [] for name in WAYS}
        for number in range(options.rounds):
            for name in WAYS:
                few, many = (
                    run(bundle, folder / f"{count}", folder / f"{number}-{name}-{count}")
                    for count in CLIPS
                )
                found[name].append(1e3 * (many - few) / (FRAMES * (CLIPS[1] - CLIPS[0])))
    for name, each in found.items():
        rounds = ", ".join(f"{value:.1f}" for value in each)
        print(f"{name}: {statistics.median(each):.1f} ms of CPU time a frame ({rounds})")
    one, stages = (statistics.median(each) for each in found.values())
    print(f"ratio {stages / one:.2f}")


def run(bundle: Path, sources: Path, output: Path) -> float:
    """CPU time of one run with all its processes, in seconds."""
    seen: dict[tuple[str, str], float] = {}
    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(seen, done))
    watcher.start()
    with contextlib.ExitStack() as stack:
        stack.callback(watcher.join)
        stack.callback(done.set)
        arguments = []
        if "stages" in output.name:
            arguments = ["--ray", stack.enter_context(ray_cluster(3)).address]
        archive(bundle, sources, output, arguments)
    return sum(seen.values())


def archive(bundle: Path, sources: Path, output: Path, arguments: list[str]) -> None:
    """`taidpt archive` with one worker a stage."""
    command = [sys.executable, "-m", "taidpt", "archive", str(bundle), str(sources)]
    command += ["-o", str(output), "--workers", "1", "--threads", "1", "--shard-clips", "1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([*command, "--device", "cpu", *arguments], check=True, **quiet)


def watch(seen: dict[tuple[str, str], float], done: threading.Event) -> None:
    """Keep the CPU time of each process below this one, in seconds, by number and start.

    Ray leaves no account of its processes that have ended.
    """
    while not done.wait(WATCH_S):
        rows = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                rows[path.parent.name] = path.read_text().rpartition(")")[2].split()
        for pid, row in rows.items():
            parent = row[1]
            while parent in rows and parent != str(os.getpid()):
                parent = rows[parent][1]
            if parent == str(os.getpid()):
                ticks = int(row[11]) + int(row[12])
                seen[pid, row[19]] = ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
