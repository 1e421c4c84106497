"""A tag from pictures: it is on where they are alike, and off at what the cameras show."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from taidpt.runtime.bank.class_bank import join_banks
from taidpt.runtime.errors import InputError
from taidpt.runtime.sites.examples_to_bank import examples_to_bank
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
    bank = examples_to_bank("mine", [frames[colour]] * 2, others, swappable)
    assert bank.thresholds[0].source == "from 2 examples"
    assert swappable.names == NAMES  # the tagger's own bank stays
    copy = swappable.with_threshold(0.0)
    copy.use_bank(join_banks(swappable.class_bank, bank))
    scores = copy.tag_batch(frames).scores[:, -1]
    reached = scores >= bank.thresholds[0].on
    assert reached.tolist() == [index == colour for index in range(4)]


def test_examples_that_look_like_the_cameras_are_one_line(swappable: Tagger) -> None:
    same = [np.full((32, 32, 3), 90, np.uint8)]
    with pytest.raises(InputError, match="look like what the cameras show"):
        examples_to_bank("mine", same, same, swappable)


def test_a_constant_bank_says_how_to_export_another(tagger: Tagger) -> None:
    frames = [colour_frame(0)]
    with pytest.raises(InputError, match="--swappable-bank"):
        examples_to_bank("mine", frames, frames, tagger)
