"""How tuning grows with the number of texts: seconds and memory, the embedded model on the CPU.

    python benchmarks/texts_scale.py [--texts 20000 80000 320000] [--steps 20] [--json FILE]

Captions of five random nouns out of the background tags, a fifth of them repeated. Each number is
a process of its own that reads the file, labels, encodes and tunes for a few steps, as `taidpt
tune` does. Memory is what a process cannot give back (RssAnon), at its largest; mapped features
are beside it.
The exponent is that of the two largest numbers: 1 is linear. Target: at most 3 GB, and linear.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

TARGET_GB = 3.0
_REPEATED = 0.2


def write_texts(path: Path, count: int, nouns: tuple[str, ...]) -> None:
    """Captions, one a line."""
    draw = random.Random(count)
    fresh = round(count * (1 - _REPEATED))
    captions = ["a photo of " + ", ".join(draw.sample(nouns, 5)) for _ in range(fresh)]
    captions += draw.choices(captions, k=count - fresh)
    path.write_text("\n".join(captions) + "\n", "utf-8")


class PeakMemory(threading.Thread):
    """Watches this process's memory that is not a mapped file, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.anonymous = self.mapped = 0
        self.start()

    def run(self) -> None:
        while True:
            lines = Path("/proc/self/status").read_text("utf-8").splitlines()
            found = {key: int(rest.split()[0]) for key, _, rest in map(_halves, lines) if key}
            self.anonymous = max(self.anonymous, found["RssAnon"] * 1024)
            self.mapped = max(self.mapped, found["RssFile"] * 1024)
            time.sleep(0.05)


def _halves(line: str) -> tuple[str, str, str]:
    key, colon, rest = line.partition(":")
    return (key, colon, rest) if key in ("RssAnon", "RssFile") else ("", "", "")


def measure(texts: Path, tags: Path, steps: int) -> dict[str, Any]:
    """One run, in this process."""
    from taidpt.progress import SilentProgress
    from taidpt.tuning.settings import TuneSettings
    from taidpt.tuning.text_job import TuneJob, run_job

    class Clock(SilentProgress):
        """Notes when a stage begins, and ends the run after some steps."""

        def __init__(self) -> None:
            self.stage, self.left = "", steps
            self.began: dict[str, float] = {}

        def start(self, description: str, total: int, done: int = 0) -> None:
            self.stage = description
            self.began.setdefault(description, time.perf_counter())

        def advance(self, count: int = 1, detail: str = "") -> None:
            self.left -= self.stage == "Tuning prompts"
            if self.left < 0:
                raise KeyboardInterrupt

        def note(self, line: str) -> None:
            print(line, file=sys.stderr)

    memory, clock, begin = PeakMemory(), Clock(), time.perf_counter()
    settings = TuneSettings(epochs=1, held_out=0.0)
    job = TuneJob("toyworld", "embedded", tags, (texts,), None, settings=settings)
    with contextlib.suppress(KeyboardInterrupt):
        run_job(job, clock)
    end = time.perf_counter()
    return {
        "read_s": clock.began["Encoding texts"] - begin,
        "encode_s": clock.began["Tuning prompts"] - clock.began["Encoding texts"],
        "step_s": (end - clock.began["Tuning prompts"]) / steps,
        "memory_gb": memory.anonymous / 1e9,
        "mapped_gb": memory.mapped / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, nargs="+", default=[20_000, 80_000, 320_000])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure, arguments.steps)))
        return
    from taidpt.texts.tags import TagSet

    nouns = TagSet.load(ROOT / "taidpt" / "data" / "background.yaml").names
    rows = {}
    print(
        f"{'texts':>9}{'read s':>9}{'encode s':>10}{'step s':>8}{'memory GB':>11}{'mapped GB':>11}"
    )
    with tempfile.TemporaryDirectory() as name:
        tags, texts = Path(name, "tags.txt"), Path(name, "texts.txt")
        tags.write_text("\n".join(nouns[:60]) + "\n", "utf-8")
        for count in arguments.texts:
            write_texts(texts, count, nouns)
            command = [sys.executable, __file__, "--steps", str(arguments.steps), "--measure"]
            command += [str(texts), str(tags)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            rows[count] = row = json.loads(done.stdout)
            widths = zip(row.values(), (9, 10, 8, 11, 11), strict=True)
            print(f"{count:>9,}" + "".join(f"{v:{w}.2f}" for v, w in widths), flush=True)
    for key in ("read_s", "encode_s", "memory_gb"):
        *_, first, last = rows
        exponent = math.log(rows[last][key] / rows[first][key]) / math.log(last / first)
        print(f"exponent of {key}: {exponent:.2f}")
    most = max(row["memory_gb"] for row in rows.values())
    print(f"memory: target {TARGET_GB:g} GB, {'met' if most <= TARGET_GB else 'MISSED'}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
