"""A tag from pictures: it is on where they are alike, and off at what the cameras show."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from taidpt.runtime.adapting.examples import examples_to_bank, put_tags
from taidpt.runtime.adapting.similarity import bank_scores
from taidpt.runtime.bank.class_bank import join_banks
from taidpt.runtime.bundle.scoring import Scoring
from taidpt.runtime.errors import InputError
from taidpt.runtime.results import TagResult
from taidpt.runtime.tagger import recent_frames
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.tiny import NAMES, TinySpec, tiny_bundle
from tests.runtime.videos import colour_frame


@pytest.fixture(scope="module")
def swappable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tagger]:
    spec = TinySpec(bank_as="input", thresholds=(1.0,))
    path = tiny_bundle(tmp_path_factory.mktemp("examples") / "a.taidpt", spec)
    with Tagger.load(path, device="cpu", threads=1) as tagger:
        yield tagger


@pytest.mark.parametrize("colour", range(4))
def test_a_colour_is_learned_from_pictures_of_it(colour: int, swappable: Tagger) -> None:
    frames = [colour_frame(25 * index) for index in range(4)]
    others = [frame for index, frame in enumerate(frames) if index != colour]
    bank = swappable.bank.from_pictures("mine", [frames[colour]] * 2, others)
    assert bank.thresholds[0].source == "from 2 examples"
    assert swappable.names == NAMES  # the tagger's own bank stays
    copy = swappable.with_threshold(0.0)
    copy.use_bank(join_banks(swappable.class_bank, bank))
    scores = copy.tag_batch(frames).scores[:, -1]
    reached = scores >= bank.thresholds[0].on
    assert reached.tolist() == [index == colour for index in range(4)]


def test_a_running_tagger_takes_pictures(swappable: Tagger) -> None:
    frames = [colour_frame(25 * index) for index in range(4)]
    copy = swappable.with_threshold(0.0)
    copy.bank.add("mine", pictures=frames[:1], background=frames[1:])
    assert copy.names == (*NAMES, "mine")
    with pytest.raises(InputError, match=r"takes one name and pictures=\[…\]"):
        copy.bank.add(["other", "another"], pictures=frames[:1])
    with pytest.raises(InputError, match="let a stream of this tagger run"):
        copy.bank.add("other", pictures=frames[:1])
    with pytest.raises(InputError, match="needs prompts"):
        copy.bank.add("other")


def test_without_a_background_a_tag_is_compared_with_what_streams_showed(
    swappable: Tagger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent_frames, "_SECONDS", 0.0)
    tagger = swappable.with_threshold(0.0)
    tagger.recent = recent_frames.RecentFrames()
    frames = [colour_frame(25 * index) for index in range(4)]
    tagger(frames[0])  # a single picture is not the scene
    with tagger.stream(frames[1:] * 8, batch=1) as stream:
        for _ in stream:
            pass
    seen = tagger.recent.features()
    assert seen is not None
    assert len(seen) == 16  # the last ones
    expected = tagger.features((frames[1:] * 8)[-16:])
    np.testing.assert_allclose(seen.patches, expected.patches, atol=2e-3)
    tagger.bank.add("mine", pictures=frames[:1])
    scores = tagger.tag_batch(frames).scores[:, -1]
    on = tagger.class_bank.thresholds[-1].on
    assert (scores >= on).tolist() == [True, False, False, False]


def test_a_frame_every_two_seconds_is_kept(
    swappable: Tagger, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(recent_frames.time, "monotonic", lambda: now)
    recent, vocabulary = recent_frames.RecentFrames(), swappable.vocabulary
    row = np.ones((1, 4), np.float32)
    for index in range(100):
        now = index / 10
        recent.offer(TagResult(row[0], row, row[0] * index, vocabulary))
        if index == 60:  # 0, 2, 4 and 6 seconds
            assert recent.features() is not None
        if index == 59:
            assert recent.features() is None
    seen = recent.features()
    assert seen is not None
    assert seen.whole[:, 0].tolist() == [0, 20, 40, 60, 80]
    recent.offer(TagResult(row[0], row, None, vocabulary))  # a graph without global features


def test_a_tag_that_exists_moves_a_little_towards_its_examples(swappable: Tagger) -> None:
    """Twenty pictures count as much as the rows that are there."""
    frames = [colour_frame(25 * index) for index in range(4)]
    shown, scene = swappable.features(frames[:1] * 20), swappable.features(frames[1:])
    bank, scoring = swappable.class_bank, Scoring()
    new = examples_to_bank("mine", shown, scene, bank, scoring)
    one, many = (
        examples_to_bank("cat", swappable.features(frames[:1] * count), scene, bank, scoring)
        for count in (1, 20)
    )
    for part in ("global_embeddings", "local_embeddings"):
        prior = getattr(bank, part)[0]
        assert prior @ getattr(one, part)[0] > prior @ getattr(many, part)[0] > 0
    both = bank.global_embeddings[0] + new.global_embeddings[0]
    expected = both / np.linalg.norm(both)
    np.testing.assert_allclose(many.global_embeddings[0], expected, atol=1e-5)
    changed = put_tags(bank, many)
    assert changed.names == bank.names
    np.testing.assert_array_equal(changed.local_embeddings[0], many.local_embeddings[0])
    np.testing.assert_array_equal(changed.local_embeddings[1:], bank.local_embeddings[1:])


@pytest.mark.parametrize("transform", ["none", "center", "log_softmax"])
def test_scores_of_stored_features_are_the_graphs(transform: str, swappable: Tagger) -> None:
    frames = [colour_frame(25 * index) for index in range(4)]
    scores = bank_scores(
        swappable.features(frames),
        swappable.class_bank,
        Scoring(swappable.bundle.manifest.scoring.temperature, 0.5, transform),
    )
    expected = swappable.tag_batch(frames).scores
    if transform == "center":
        expected = expected - expected.mean(axis=1, keepdims=True)
    if transform == "log_softmax":
        expected = expected - np.log(np.exp(expected).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(scores, expected, atol=2e-4)


def test_examples_that_look_like_the_cameras_are_one_line(swappable: Tagger) -> None:
    same = [np.full((32, 32, 3), 90, np.uint8)]
    with pytest.raises(InputError, match="look like what the cameras show"):
        swappable.bank.from_pictures("mine", same, same)


def test_a_constant_bank_says_how_to_export_another(tagger: Tagger) -> None:
    frames = [colour_frame(0)]
    with pytest.raises(InputError, match="--swappable-bank"):
        tagger.bank.from_pictures("mine", frames, frames)
