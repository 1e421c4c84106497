"""`taidpt confusable BUNDLE --bank FILE`: the bank's tags, through the bundle's graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.runtime.tiny import TinySpec, tiny_bundle
from tests.taidpt.calibration.test_calibrate_command import run_here

SPEC = TinySpec(bank_as="input")


def test_the_tags_of_a_bank_are_looked_at_on_frames(tmp_path: Path) -> None:
    bundle, bank = tiny_bundle(tmp_path / "scene.taidpt", SPEC), tmp_path / "site.bank"
    SPEC.bank().select(SPEC.names[1::-1]).save(bank)
    random = np.random.default_rng(0)
    for index in range(3):
        frame = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(frame).save(tmp_path / f"{index}.png")
    done = run_here("confusable", bundle, "--bank", bank, "--frames", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 tags, 3 frames")
    assert SPEC.names[2] not in done.stdout
    alone = run_here("confusable", bank, "--bank", bank)
    assert alone.returncode == 2
    assert "--frames, --texts and --bank need a bundle" in alone.stderr
