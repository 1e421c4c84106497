"""`taidpt calibrate BUNDLE --bank FILE`: the bank learns, the bundle stays, refusals."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taidpt.calibration.captions import label_captions
from taidpt.calibration.targets import BankTarget, open_target
from taidpt.runtime.bank.class_bank import ClassBank, Threshold
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import BundleError
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.tiny import TinySpec, tiny_bundle
from tests.taidpt.calibration.small_scene import SPEC, bundle_in, draw_pictures
from tests.taidpt.calibration.test_calibrate_command import calibrate


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("pictures"), 30)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bundle_in(tmp_path)


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    """Three of the bundle's tags in another order, for scores of another transform."""
    few = SPEC.bank().select(SPEC.names[2::-1])
    metadata = {**few.metadata, "scoring": {"transform": "center"}, "made_from": "a test"}
    dataclasses.replace(few, metadata=metadata).save(tmp_path / "site.bank")
    return tmp_path / "site.bank"


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_bank_learns_what_the_bundle_would(
    bundle: Path, bank: Path, pictures: Path, tmp_path: Path
) -> None:
    before, rows = content(bundle), ClassBank.load(bank)
    labels = tmp_path / "few.csv"
    labels.write_text(f"frame,tag,present\n03.png,{SPEC.names[1]},1\n")
    done = calibrate(bundle, "--bank", bank, "--frames", pictures, "--labels", labels)
    assert done.returncode == 0, done.stderr
    assert f"wrote thresholds and probability maps into {bank}" in done.stdout
    assert content(bundle) == before
    made = ClassBank.load(bank)
    assert made.names == SPEC.names[2::-1]
    np.testing.assert_array_equal(made.local_embeddings, rows.local_embeddings)
    assert {threshold.source for threshold in made.thresholds} == {"calibrated"}
    assert made.metadata["scoring"]["transform"] == "none"
    assert made.metadata["calibration"] == {"frames": 30, "effective_frames": 30.0}
    assert made.metadata["made_from"] == "a test"
    with Tagger.load(bundle, device="cpu") as tagger:
        tagger.use_bank(bank)
        found = tagger.tag(np.asarray(Image.open(pictures / "03.png")))
    assert tagger.vocabulary.on.tolist() == [threshold.on for threshold in made.thresholds]
    assert all(tag.probability is not None for tag in found.tags)


def test_the_same_tags_learn_the_same_in_a_bank_and_in_a_bundle(
    bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    whole, labels = tmp_path / "whole.bank", tmp_path / "few.csv"
    SPEC.bank().save(whole)
    rows = "".join(f"03.png,{name},1\n" for name in SPEC.names)
    labels.write_text(f"frame,tag,present\n{rows}")
    options = ("--frames", pictures, "--labels", labels)
    assert calibrate(bundle, "--bank", whole, *options).returncode == 0
    assert calibrate(bundle, *options).returncode == 0
    tags = Bundle.load(bundle).manifest.tags
    made = ClassBank.load(whole)
    assert made.thresholds == [tag.threshold for tag in tags]
    assert made.probabilities == [tag.probability for tag in tags]


def test_a_dry_run_leaves_the_bank(bundle: Path, bank: Path, pictures: Path) -> None:
    before = bank.read_bytes()
    done = calibrate(bundle, "--bank", bank, "--frames", pictures, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert bank.read_bytes() == before


def test_a_bank_that_was_replaced_meanwhile_is_left_alone(bundle: Path, bank: Path) -> None:
    target = open_target(str(bundle), str(bank))
    assert isinstance(target, BankTarget)
    learned = {name: (Threshold(2.0, 1.0, "calibrated"), None) for name in target.names}
    other = dataclasses.replace(SPEC, seed=5).bank().select(target.names)
    other.save(bank)
    with pytest.raises(BundleError, match="was replaced while it was calibrated"):
        target.write(learned, {"frames": 1})
    assert ClassBank.load(bank).thresholds == other.thresholds
    target.bank.save(bank)
    target.write(learned, {"frames": 1})
    assert {threshold.on for threshold in ClassBank.load(bank).thresholds} == {2.0}


def test_captions_are_looked_through_for_the_tags_of_the_bank(
    bundle: Path, bank: Path, tmp_path: Path
) -> None:
    path = tmp_path / "captions.txt"
    path.write_text("A dog sleeps.\nTwo cats and a dog.\n")
    targets = label_captions(open_target(str(bundle), str(bank)), str(path))[1]
    names = SPEC.names[2::-1]
    assert [[names[tag] for tag in np.flatnonzero(row > 0)] for row in targets] == [
        ["dog"],
        ["dog", "cat"],
    ]


def test_refusals_are_one_line_with_the_next_command(
    bundle: Path, bank: Path, pictures: Path, tmp_path: Path
) -> None:
    constant = tiny_bundle(tmp_path / "fixed.taidpt", TinySpec())
    other = tmp_path / "other.bank"
    dataclasses.replace(SPEC, dim=8).bank().save(other)
    (tmp_path / "cut.bank").write_bytes(bank.read_bytes()[:-3])
    frames = ("--frames", pictures)
    cases = (
        ((constant, "--bank", bank, *frames), f"taidpt-export {constant} --swappable-bank -o"),
        ((bundle, "--bank", other, *frames), "have 8 dimensions, and those of"),
        ((bundle, "--bank", tmp_path / "no.bank", *frames), "no.bank: cannot read the bank"),
        ((bundle, "--bank", tmp_path / "cut.bank", *frames), "cut.bank: damaged bank"),
        ((bundle, "--bank", bundle, *frames), "scene.taidpt: expected a bank"),
        ((bank, *frames), f"taidpt calibrate BUNDLE --bank {bank} --frames SOURCE"),
        ((bank,), f"taidpt calibrate BUNDLE --bank {bank} --frames SOURCE"),
        (("--bank", bank, *frames), "nothing to calibrate: give a bundle"),
        (("--scores", "x.npz", "--bank", bank), "not both"),
        ((bundle, "--bank", bank), "nothing to calibrate"),
    )
    for arguments, message in cases:
        done = calibrate(*arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert "\n" not in done.stderr
