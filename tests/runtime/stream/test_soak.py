"""Memory stays flat: twenty minutes' worth of frames at full speed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = """
import os, sys
from taidpt.runtime import Tagger
from taidpt.runtime.bench.bench import SyntheticSource
from taidpt.runtime.sinks.jsonl import EventsSink, JsonlSink
from taidpt.runtime.stream.stream import Stream, StreamSettings

def resident():
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

FRAMES = 20 * 60 * 10
source = SyntheticSource((24, 32, 3), FRAMES, fps=10)
source.live = False
sinks = [JsonlSink("/dev/null"), EventsSink("/dev/null")]
settings = StreamSettings(batch=4, keep_events=False, min_on_s=0.0, min_off_s=0.0)
with Tagger.load(sys.argv[1], device="cpu", threads=1) as tagger:
    early = 0
    for count, moment in enumerate(Stream(tagger, source, settings), start=1):
        for sink in sinks:
            sink.write(moment)
        moment.result.heatmap("dog")
        if count == FRAMES // 6:
            early = resident()
    print(count, resident() / early)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_flat_over_twenty_minutes_of_frames(bundle_path: Path) -> None:
    command = [sys.executable, "-c", SOAK, str(bundle_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    count, growth = done.stdout.split()
    assert int(count) == 12000
    assert float(growth) < 1.05
