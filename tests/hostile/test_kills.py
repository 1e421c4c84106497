"""Kills at any moment: every line whole, no event lost, none told twice."""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

from tests.support import REPOSITORY

KILLS = 12
# From the start of the process to its death; more than a minute means that it hangs.
LONGEST_S = 60.0


def run_and_kill(files: list[Path], chance: random.Random) -> None:
    """Start the camera, wait for some events more, and kill it at a random moment after them."""
    command = [sys.executable, "-m", "tests.hostile.killed_camera", *map(str, files)]
    start_s = time.monotonic()
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE) as child:
        wanted = size(files[1]) + chance.randint(1, 3000)
        while size(files[1]) < wanted and child.poll() is None:
            assert time.monotonic() - start_s < LONGEST_S
            time.sleep(0.005)
        time.sleep(chance.random() * 0.01)
        child.kill()
        _, errors = child.communicate()
    assert child.returncode == -9, errors.decode()


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def test_no_event_is_lost_or_told_twice_over_kills(tmp_path: Path) -> None:
    chance = random.Random(0)
    files = [tmp_path / name for name in ("state", "events.jsonl", "frames.jsonl")]
    for _ in range(KILLS):
        run_and_kill(files, chance)
    # what follows the last line's end is what the next run removes
    whole = files[1].read_bytes().rpartition(b"\n")[0].splitlines()
    events = [json.loads(line) for line in whole]
    assert len(events) > 10 * KILLS
    assert [event["number"] for event in events] == list(range(1, len(events) + 1))
    kinds = defaultdict(list)
    for event in events:
        kinds[event["tag"]].append(event["kind"])
    for tag, changes in kinds.items():
        assert changes == (["on", "off"] * len(changes))[: len(changes)], tag
    for line in files[2].read_bytes().rpartition(b"\n")[0].splitlines():
        assert json.loads(line)["schema"] == "taidpt-frame/1"
    table = Path(f"{files[2]}.csv").read_text("utf-8").rpartition("\n")[0]
    rows = list(csv.reader(table.splitlines()))
    assert {len(row) for row in rows} == {7}
    assert sum(row[0] == "source" for row in rows) == 1
    assert not list(tmp_path.glob(".*"))[1:]  # one temporary file of the last kill at most
