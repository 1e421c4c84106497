"""What a scene's frames and captions are worth: alike frames, captions through a text tower."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from taidpt.calibration.captions import label_captions, tags_from_captions
from taidpt.calibration.statistics.effective import effective_frames
from taidpt.calibration.statistics.estimator import calibrate
from taidpt.calibration.targets import Target, open_target
from taidpt.clip import model as clip_model
from taidpt.clip.model import ClipModel
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import InputError
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.tiny import TinySpec, tiny_bundle
from tests.taidpt.calibration.simulator import Size, simulate
from tests.taidpt.calibration.test_calibrate_command import calibrate as calibrate_command


def test_independent_frames_count_in_full_and_repeated_ones_once() -> None:
    scores = np.random.default_rng(0).standard_normal((200, 8))
    assert effective_frames(scores) > 180
    assert effective_frames(np.repeat(scores, 10, axis=0)) == pytest.approx(200, rel=0.15)


def test_effective_frames_of_too_little() -> None:
    assert effective_frames(np.zeros((1, 3))) == 1
    assert effective_frames(np.zeros((50, 3))) == 50


def test_frames_that_are_alike_make_less_sure() -> None:
    scores = simulate("plain", 206, Size(600, 8)).merged()
    rank = {"low": 0, "medium": 1, "high": 2}
    every, few = calibrate(scores), calibrate(scores, effective_frames=15.0)
    assert few.effective_frames == pytest.approx(15.0)
    sure = [[rank[tag.sureness] for tag in one.tags] for one in (every, few)]
    assert sum(sure[1]) < sum(sure[0])


@pytest.fixture
def target(tmp_path: Path, vit_clip: ClipModel, monkeypatch: pytest.MonkeyPatch) -> Target:
    monkeypatch.setattr(clip_model, "load_clip", lambda *_: vit_clip)
    return open_target(str(tiny_bundle(tmp_path / "a.taidpt", TinySpec(dim=vit_clip.embed_dim))))


def test_captions_are_scored_and_have_the_tags_that_they_name(
    target: Target, tmp_path: Path
) -> None:
    path = tmp_path / "captions.txt"
    path.write_text("A dog sleeps.\nTwo cats and a dog.\nNobody is there.\n")
    targets = label_captions(target, str(path))[1]
    assert [np.flatnonzero(row > 0).tolist() for row in targets] == [[1], [0, 1], []]
    found = tags_from_captions(target, str(path))
    sources = [one.threshold.source for one in found[:3]]
    assert sources == ["from texts", "from texts", "from texts, all tags"]
    assert [one.named for one in found] == [1, 2, 0, 0, 0]
    assert {one.sureness for one in found} == {"low"}


def test_captions_that_name_no_tag_are_refused(target: Target, tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("Nobody is there.\n")
    with pytest.raises(InputError, match="names a tag"):
        tags_from_captions(target, str(tmp_path / "captions.txt"))


@pytest.mark.parametrize("into", ["bundle", "bank"])
def test_captions_alone_give_a_bundle_and_a_bank_thresholds_and_maps(
    into: str, tmp_path: Path, vit_clip: ClipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_model, "load_clip", lambda *_: vit_clip)
    spec = TinySpec(dim=vit_clip.embed_dim, bank_as="input")
    bundle, bank = tiny_bundle(tmp_path / "a.taidpt", spec), tmp_path / "site.bank"
    spec.bank().select(spec.names[1::-1]).save(bank)
    captions = tmp_path / "captions.txt"
    captions.write_text("A dog sleeps.\nTwo cats and a dog.\nNobody is there.\n")
    chosen = ("--bank", bank) if into == "bank" else ()
    before = Bundle.load(bundle).manifest.tags
    done = calibrate_command(bundle, *chosen, "--texts", captions, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert Bundle.load(bundle).manifest.tags == before
    lines = {line.split()[0]: line.split()[-2:] for line in done.stdout.splitlines() if line}
    assert lines["tag"] == ["by", "sure"]
    assert (lines["dog"], lines["cat"]) == (["2", "low"], ["1", "low"])
    assert ("named by no caption" in done.stdout) is (into == "bundle")
    assert calibrate_command(bundle, *chosen, "--texts", captions).returncode == 0
    written = ClassBank.load(bank)
    if into == "bundle":
        assert all(found is None for found in written.probabilities)
        written = Bundle.load(bundle).bank
        maps = [tag.probability for tag in Bundle.load(bundle).manifest.tags]
    else:
        assert Bundle.load(bundle).manifest.tags == before
        maps = list(written.probabilities)
    assert [one["state"] for one in maps if one is not None] == ["from texts"] * len(written.names)
    with Tagger.load(bundle, device="cpu") as tagger:
        if into == "bank":
            tagger.use_bank(bank)
        found = tagger.tag(np.zeros((16, 16, 3), np.uint8))
    assert all(tag.threshold_source.startswith("from texts") for tag in found.tags)
    assert all(tag.probability is None for tag in found.tags)  # no picture was seen


def test_captions_beside_frames_are_refused(target: Target, tmp_path: Path) -> None:
    done = calibrate_command(target.path, "--frames", tmp_path, "--texts", tmp_path / "a.txt")
    assert done.returncode == 2
    assert "--frames or --texts, not both" in done.stderr
