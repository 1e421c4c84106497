"""What can be refused before frames are scored is: hours of scoring are not lost to a typo."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from taidpt.calibration.scene import _stilled
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.videos import colour_video
from tests.taidpt.calibration.small_scene import SPEC, bundle_in, draw_pictures
from tests.taidpt.calibration.test_calibrate_command import Done, calibrate, run_here

TAG = SPEC.names[0]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("pictures"), 24)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bundle_in(tmp_path)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_video(tmp_path_factory.mktemp("video") / "colours.mp4")


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows when frames are scored."""
    calls: list[int] = []
    tag_batch = Tagger.tag_batch

    def counted(tagger: Tagger, frames: Any) -> Any:
        calls.append(len(frames))
        return tag_batch(tagger, frames)

    monkeypatch.setattr(Tagger, "tag_batch", counted)
    return calls


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """One label, without which the few pictures of noise teach nothing."""
    path = tmp_path / "one.csv"
    path.write_text(f"frame,tag,present\n03.png,{TAG},1\n")
    return path


def assert_refused(done: Done, word: str) -> None:
    assert done.returncode == 2
    assert word in done.stderr
    assert "\n" not in done.stderr


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        (["03.png,frok,1"], "line 2: no tag 'frok'"),
        (["03.png,TAG,1", "99.png,TAG,1"], "line 3: no frame '99.png'"),
        (["03.png,TAG,1", "03.png,TAG,0"], "line 3: 03.png is said to have"),
        (["23.png,TAG,1"], "line 2: no frame '23.png'"),
    ],
)
def test_labels_that_do_not_fit(
    lines: list[str], word: str, bundle: Path, pictures: Path, tmp_path: Path, scored: list[int]
) -> None:
    rows = "\n".join(["frame,tag,present", *lines]).replace("TAG", TAG)
    (tmp_path / "few.csv").write_text(rows)
    done = calibrate(
        bundle, "--frames", pictures, "--max-frames", 23, "--labels", tmp_path / "few.csv"
    )
    assert_refused(done, word)
    assert not scored


def test_labels_of_video_frames_that_every_passes_over(
    bundle: Path, video: Path, tmp_path: Path, scored: list[int]
) -> None:
    for frame in ("7", "000.png", "500"):
        (tmp_path / "few.csv").write_text(f"frame,tag,present\n{frame},{TAG},1\n")
        done = calibrate(
            bundle, "--frames", video, "--every", 5, "--max-frames", 100,
            "--labels", tmp_path / "few.csv",
        )  # fmt: skip
        assert_refused(done, f"line 2: no frame {frame!r}; a video's frames are called by their")
    assert not scored


def test_files_that_are_missing_and_folders_that_are_not_there(
    bundle: Path, pictures: Path, tmp_path: Path, scored: list[int]
) -> None:
    for more, word in (
        (("--labels", tmp_path / "no.csv"), "no.csv: cannot read the labels"),
        (("--json", tmp_path / "no" / "a.json"), f"its folder {tmp_path / 'no'} does not exist"),
        (("--json", tmp_path), "is a folder"),
        (("--texts", tmp_path / "no.txt"), "--frames or --texts, not both"),
        (("--frames", pictures), "is given twice"),
        (("--frames", tmp_path / "no.mp4"), "no.mp4: no such file"),
    ):
        assert_refused(calibrate(bundle, "--frames", pictures, *more), word)
    assert not scored


def test_a_bundle_that_cannot_be_written(
    bundle: Path, pictures: Path, scored: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)
    assert_refused(calibrate(bundle, "--frames", pictures), "no permission to write")
    assert not scored
    assert calibrate(bundle, "--frames", pictures, "--dry-run").returncode == 0
    assert sum(scored) == 24


def test_a_disk_that_is_full_in_the_end(
    bundle: Path, pictures: Path, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = Bundle.load(bundle).manifest
    monkeypatch.setattr("taidpt.runtime.bundle.bundle.write_atomically", fail)
    kept = tmp_path / "kept.json"
    frames = ("--frames", pictures, "--labels", labels)
    done = calibrate(bundle, *frames, "--json", kept)
    assert_refused(
        done, f"cannot be written: No space left on device; what was learned is in {kept}"
    )
    assert kept.is_file()
    assert_refused(calibrate(bundle, *frames), "--json FILE keeps what is learned")
    assert TAG in done.stdout
    assert Bundle.load(bundle).manifest == before


def test_a_broken_picture_is_a_warning_while_others_are_used(
    bundle: Path, pictures: Path, labels: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    for path in pictures.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "07.png").write_bytes(b"no picture")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "._a.png").write_bytes(b"no picture")
    both = ("--frames", tmp_path / "none", "--frames", folder)
    for options in (("--labels", labels), ("--report", "-")):
        caplog.clear()
        done = run_here("calibrate", bundle, *both, *options)
        assert done.returncode == 0, done.stderr
        assert "1 of 24 pictures could not be read" in caplog.text
        assert "._a.png" in caplog.text
        assert "23 frames" in done.stdout
    assert Bundle.load(bundle).manifest.tags[0].threshold.source == "calibrated"
    for path in folder.iterdir():
        path.write_bytes(b"no picture")
    for options in ((), ("--report", "-")):
        refused = run_here("calibrate", bundle, "--frames", folder, *options)
        assert_refused(refused, "24 of 24 pictures could not be read")


def test_copies_of_one_frame_are_refused_whatever_rounding_says(
    bundle: Path, tmp_path: Path
) -> None:
    """A graph may give other last digits for a frame in another batch."""
    folder = tmp_path / "flat" / "monday"
    folder.mkdir(parents=True)
    for index in range(25):
        Image.new("RGB", (16, 16), (90, 90, 90)).save(folder / f"{index}.png")
    done = calibrate(bundle, "--frames", folder.parent, "--dry-run")
    assert_refused(done, "the 25 frames are copies of 1")


def test_the_last_digits_of_float32_are_no_movement() -> None:
    random = np.random.default_rng(0)
    scores = np.stack([2.0 + 1e-6 * random.random(30), random.random(30)], axis=1)
    stilled = _stilled(scores)
    assert np.ptp(stilled[:, 0]) == 0
    np.testing.assert_array_equal(stilled[:, 1], scores[:, 1])


@pytest.mark.parametrize("name", ["report.pdf", "no/report.png"])
def test_a_report_that_cannot_be_written(
    name: str, bundle: Path, pictures: Path, tmp_path: Path, scored: list[int]
) -> None:
    done = run_here("calibrate", bundle, "--frames", pictures, "--report", tmp_path / name)
    assert done.returncode == 2
    assert name in done.stderr
    assert not scored
