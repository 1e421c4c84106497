"""`taidpt calibrate BUNDLE --bank FILE --report -`: the bank's tags, through the bundle's graph."""

from __future__ import annotations

from pathlib import Path

from tests.taidpt.calibration.small_scene import SPEC, bundle_in, draw_pictures
from tests.taidpt.calibration.test_calibrate_command import run_here


def test_the_tags_of_a_bank_are_looked_at_on_frames(tmp_path: Path) -> None:
    bundle, bank = bundle_in(tmp_path), tmp_path / "site.bank"
    SPEC.bank().select(SPEC.names[1::-1]).save(bank)
    pictures = draw_pictures(tmp_path / "pictures", 3)
    done = run_here("calibrate", bundle, "--report", "-", "--bank", bank, "--frames", pictures)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 tags, 3 frames")
    assert SPEC.names[2] not in done.stdout
    alone = run_here("calibrate", bank, "--report", "-", "--bank", bank)
    assert alone.returncode == 2
    assert "--frames, --texts and --bank need a bundle" in alone.stderr
