"""What a server costs a frame, beside the tagger in process: by gRPC and in shared memory.

    python benchmarks/triton_client.py [BUNDLE | --rn50] [--batch 1 8] [--repeats 40] [--json FILE]

Starts the Triton Inference Server of build/triton on this machine (.ci/run installs it) with a
bundle on the CPU: BUNDLE, or RN50 with random weights, or else a graph that computes almost
nothing and has the frames and features of RN50 (150 and 200 KB), for the way alone. Three taggers
take turns with the same frames of the model's size, one thread each: in process, and of the server
with and without shared memory. Milliseconds a frame, the ratio of their 20th percentiles to that in
process (other work on the machine moves medians more), and CPU milliseconds of client and server.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from taidpt.runtime import Tagger
from taidpt.runtime.triton_server.repository import RepositoryOptions, write_repository
from tests.runtime.tiny import TinySpec, tiny_bundle
from tests.runtime.triton_server.server import Server, serving

WARM_UP = 3


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and its children, so far."""
    ticks = 0.0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text("ascii").split():
            ticks += cpu_s(int(child)) * os.sysconf("SC_CLK_TCK")
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (ticks + int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(
    sides: dict[str, Callable[[], Any]], server: Server, batch: int, repeats: int
) -> list[dict[str, Any]]:
    """Run the sides in turn; a row each, with times a frame in milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    client, served = dict.fromkeys(sides, 0.0), dict.fromkeys(sides, 0.0)
    for index in range(WARM_UP + repeats):
        order = list(sides)[index % len(sides) :] + list(sides)[: index % len(sides)]
        for name, run in ((name, sides[name]) for name in order):
            before = time.perf_counter(), time.process_time(), cpu_s(server.process.pid)
            run()
            after = time.perf_counter(), time.process_time(), cpu_s(server.process.pid)
            if index >= WARM_UP:
                times[name].append(after[0] - before[0])
                client[name] += after[1] - before[1]
                served[name] += after[2] - before[2]
    best = {name: sorted(values)[len(values) // 5] for name, values in times.items()}
    return [
        {
            "side": name,
            "batch": batch,
            "p20_ms": 1e3 * best[name] / batch,
            "p50_ms": 1e3 * statistics.median(values) / batch,
            "ratio": best[name] / best["in process"],
            "client_cpu_ms_a_frame": 1e3 * client[name] / repeats / batch,
            "server_cpu_ms_a_frame": 1e3 * served[name] / repeats / batch,
        }
        for name, values in times.items()
    ]


def compare(bundle: Path, folder: Path, batches: list[int], repeats: int) -> list[dict[str, Any]]:
    """Serve the bundle, and measure each batch size."""
    models = folder / "models"
    options = RepositoryOptions("model", max(batches), device="cpu", threads=1)
    write_repository(str(bundle), str(models), options)
    for other in models.glob("model_*"):
        shutil.rmtree(other)  # the graph alone needs a backend that the wheel does not have
    rows = []
    with serving(models, folder) as server:
        url = f"triton://127.0.0.1:{server.port}/model"
        with (
            Tagger.load(bundle, device="cpu", threads=1) as local,
            Tagger.load(url) as shared,
            Tagger.load(f"{url}?shared-memory=off") as sent,
        ):
            assert shared.backend.name.endswith("shared memory"), "the server shares no memory"
            shape = local.bundle.manifest.input.frame_shape
            taggers = {"in process": local, "shared memory": shared, "gRPC": sent}
            for batch in batches:
                size = (batch, *shape)
                frames = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
                sides = {
                    name: (lambda tagger=tagger, frames=frames: tagger.tag_batch(frames))
                    for name, tagger in taggers.items()
                }
                rows += measure(sides, server, batch, repeats)
    return rows


def chosen_bundle(folder: Path, rn50: bool) -> Path:
    """RN50, or almost nothing with its sizes."""
    if not rn50:
        return tiny_bundle(folder / "tiny.taidpt", TinySpec(224, 224, dim=16))
    from benchmarks.tagger_overhead import make_bundle

    return make_bundle(folder, 80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", nargs="?", type=Path)
    parser.add_argument("--rn50", action="store_true")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = arguments.bundle or chosen_bundle(folder, arguments.rn50)
        rows = compare(bundle, folder, arguments.batch, arguments.repeats)
    print("batch  side           ms a frame: p20     p50  ratio  CPU ms a frame: client  server")
    for row in rows:
        cpu = f"{row['client_cpu_ms_a_frame']:22.2f}  {row['server_cpu_ms_a_frame']:6.2f}"
        wall = f"{row['p20_ms']:15.2f}  {row['p50_ms']:6.2f}  {row['ratio']:5.3f}"
        print(f"{row['batch']:5}  {row['side']:13}  {wall}  {cpu}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
