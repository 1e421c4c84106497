"""`taidpt calibrate` from the command line: reports, shuffled targets, a bundle, refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import taidpt
from taidpt.cli import cli
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import InputError, TaidptError
from taidpt.runtime.tagger.tagger import Tagger
from taidpt.score_file import ScoreFile
from tests.support import REPOSITORY
from tests.taidpt.calibration.simulator import Size, simulate
from tests.taidpt.calibration.small_scene import bundle_in, draw_pictures


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def calibrate(*arguments: object) -> Done:
    """`taidpt calibrate` inside this process."""
    return run_here("calibrate", *arguments)


def run_here(*arguments: object) -> Done:
    """A command inside this process; an error of ours becomes what the shell would see."""
    result = CliRunner().invoke(cli, [*map(str, arguments)])
    if isinstance(result.exception, TaidptError):
        return Done(result.exception.exit_code, result.stdout, str(result.exception))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, "")


@pytest.fixture
def matrix_path(tmp_path: Path) -> Path:
    simulate("shifted", 9, Size(300, 5)).save(tmp_path / "scores.npz")
    return tmp_path / "scores.npz"


def test_report_prints_ours_beside_the_rivals(matrix_path: Path) -> None:
    done = calibrate("--scores", matrix_path, "--judge")
    assert done.returncode == 0, done.stderr
    for word in ("ours, no labels", "one threshold", "Otsu", "two Gaussians", "calibration error"):
        assert word in done.stdout


def test_thresholds_do_not_change_when_targets_are_shuffled(
    matrix_path: Path, tmp_path: Path
) -> None:
    matrix = ScoreFile.load(matrix_path)
    assert matrix.targets is not None
    shuffled = np.random.default_rng(0).permuted(matrix.targets, axis=0)
    other = ScoreFile(shuffled, matrix.global_scores, matrix.local_scores, matrix.names)
    other.save(tmp_path / "shuffled.npz")
    for path, target in ((matrix_path, "a.json"), (tmp_path / "shuffled.npz", "b.json")):
        done = calibrate("--scores", path, "--judge", "--json", tmp_path / target)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_works_without_targets_and_the_report_asks_for_them(
    matrix_path: Path, tmp_path: Path
) -> None:
    matrix = ScoreFile.load(matrix_path)
    bare = ScoreFile(None, matrix.global_scores, matrix.local_scores, matrix.names)
    bare.save(tmp_path / "bare.npz")
    assert calibrate("--scores", tmp_path / "bare.npz").returncode == 0
    done = calibrate("--scores", tmp_path / "bare.npz", "--judge")
    assert done.returncode == 2
    assert "needs targets" in done.stderr


def test_writes_into_a_bundle_what_the_tagger_then_uses(tmp_path: Path) -> None:
    bundle = tmp_path / "scene.taidpt"
    shutil.copytree(REPOSITORY / "tests" / "golden" / "schema1.taidpt", bundle)
    pictures = draw_pictures(tmp_path / "pictures", 30)
    assert calibrate(bundle, "--frames", pictures, "--dry-run").returncode == 0
    assert Bundle.load(bundle).manifest.tags[0].threshold.source != "calibrated"
    rows = "".join(f"03.png,{name},1\n" for name in Bundle.load(bundle).names)
    (tmp_path / "few.csv").write_text(f"frame,tag,present\n{rows}")
    done = calibrate(bundle, "--frames", pictures, "--labels", tmp_path / "few.csv")
    assert done.returncode == 0, done.stderr
    loaded = Bundle.load(bundle)
    assert loaded.verify_hashes() == ()
    assert {tag.threshold.source for tag in loaded.manifest.tags} == {"calibrated"}
    with Tagger.load(bundle, device="cpu") as tagger:
        found = tagger.tag(np.asarray(Image.open(pictures / "03.png")))
    assert all(tag.probability is not None for tag in found.tags)


def test_json_on_standard_output_is_alone_there(tmp_path: Path) -> None:
    bundle = tmp_path / "a.taidpt"
    shutil.copytree(REPOSITORY / "tests" / "golden" / "schema1.taidpt", bundle)
    pictures, labels = draw_pictures(tmp_path / "pictures", 30), tmp_path / "few.csv"
    name = Bundle.load(bundle).manifest.names[0]
    labels.write_text(f"frame,tag,present\n03.png,{name},1\n")
    done = calibrate(bundle, "--frames", pictures, "--labels", labels, "--json", "-")
    assert done.returncode == 0
    assert json.loads(done.stdout)["frames"] == 30
    assert Bundle.load(bundle).manifest.tags[0].threshold.source == "calibrated"


def test_the_python_call_does_and_returns_what_the_command_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = draw_pictures(tmp_path / "pictures", 30)
    for name in ("a.taidpt", "b.taidpt"):
        shutil.copytree(REPOSITORY / "tests" / "golden" / "schema1.taidpt", tmp_path / name)
    before = Bundle.load(tmp_path / "a.taidpt").manifest
    labels = tmp_path / "few.csv"
    labels.write_text(f"frame,tag,present\n03.png,{before.names[0]},1\n")
    found = taidpt.calibrate(tmp_path / "a.taidpt", pictures, labels=labels)
    assert capsys.readouterr().out == ""
    assert "calibrated" in {threshold.source for threshold in found.values()}
    assert list(found.values()) != [tag.threshold for tag in before.tags]
    options = ("--frames", pictures, "--labels", labels)
    assert calibrate(tmp_path / "b.taidpt", *options).returncode == 0
    assert found == {
        tag.name: tag.threshold for tag in Bundle.load(tmp_path / "b.taidpt").manifest.tags
    }
    with pytest.raises(InputError, match="nothing to calibrate"):
        taidpt.calibrate(tmp_path / "a.taidpt")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "nothing to calibrate"),
        (("a.taidpt",), "nothing to calibrate"),
        (("a.taidpt", "--frames", "x", "--scores", "y.npz"), "not both"),
        (("a.taidpt", "--frames", "x", "--judge"), "--scores"),
        (("a.taidpt", "--frames", "x"), "a.taidpt"),
        (("--scores", "missing.npz"), "no such file"),
    ],
)
def test_bad_arguments_are_one_line(arguments: tuple[str, ...], word: str) -> None:
    done = calibrate(*arguments)
    assert done.returncode == 2
    assert word in done.stderr
    assert "\n" not in done.stderr


def test_as_a_process_an_error_is_one_line() -> None:
    command = [sys.executable, "-m", "taidpt", "calibrate", "--scores", "missing.npz"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_the_saved_json_reads_back(matrix_path: Path, tmp_path: Path) -> None:
    assert calibrate("--scores", matrix_path, "--json", tmp_path / "a.json").returncode == 0
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["frames"] == 300
    assert [tag["name"] for tag in document["tags"]] == [f"tag {i}" for i in range(5)]


def test_what_is_not_installed_is_said_in_one_line(matrix_path: Path) -> None:
    blocked = "import sys; sys.modules['scipy'] = None; from taidpt.cli import main; main()"
    command = [sys.executable, "-c", blocked, "calibrate", "--scores", str(matrix_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr == (
        "error: taidpt calibrate needs scipy, which is not installed: "
        "pip install 'taidpt[calibrate]'\n"
    )


@pytest.mark.parametrize("level", [0, 200])
def test_copies_of_one_picture_change_nothing(level: int, tmp_path: Path) -> None:
    bundle = bundle_in(tmp_path)
    before = (bundle / "manifest.json").read_bytes()
    folder = tmp_path / "copies"
    folder.mkdir()
    for index in range(40):
        Image.fromarray(np.full((16, 16, 3), level, np.uint8)).save(folder / f"{index:02}.png")
    done = calibrate(bundle, "--frames", folder)
    assert done.returncode == 2
    assert "40 frames are copies of 1" in done.stderr
    assert (bundle / "manifest.json").read_bytes() == before
