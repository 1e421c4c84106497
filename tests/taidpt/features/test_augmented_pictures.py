"""Pictures that change each time: by seed, epoch and picture alone, and only as they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from taidpt.clip.model import ClipModel
from taidpt.datasets import LabelledImages
from taidpt.encoders.picture_input import PictureInput
from taidpt.features.augmented_pictures import AUGMENTATIONS, AugmentedPictures, augmentation
from taidpt.features.pictures import encode_pictures
from taidpt.runtime.errors import InputError
from taidpt.texts.tags import TagSet
from taidpt.tuning.picture_features import few_shots

BATCHES = [np.array([2, 0]), np.array([1])]


@pytest.fixture
def images(tmp_path: Path) -> LabelledImages:
    generator = np.random.default_rng(0)
    paths = []
    for number in range(3):
        small = generator.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(small).resize((70, 50)).save(paths[-1])
    targets = np.ones((3, 1), np.int8)
    return LabelledImages("three", TagSet.from_names(["dog"]), tuple("abc"), tuple(paths), targets)


def features(pictures: AugmentedPictures, epoch: int, start: int = 0) -> torch.Tensor:
    return torch.cat([batch.tokens for batch in pictures.stream(epoch, BATCHES[start:])])


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_changes_depend_on_seed_epoch_and_picture_alone(
    resnet_clip: ClipModel, images: LabelledImages, kind: str
) -> None:
    pictures = AugmentedPictures(resnet_clip, images, kind, seed=1)
    first = features(pictures, epoch=1)
    torch.rand(7)  # whatever else draws random numbers
    torch.testing.assert_close(features(pictures, epoch=1), first, rtol=0, atol=0)
    torch.testing.assert_close(features(pictures, epoch=1, start=1), first[2:], rtol=0, atol=1e-6)
    others = (features(pictures, 2), features(AugmentedPictures(resnet_clip, images, kind, 2), 1))
    for other in others:
        assert (other - first).flatten(1).norm(dim=1).min() > 2e-3  # a random model sees little


def test_workers_change_nothing(resnet_clip: ClipModel, images: LabelledImages) -> None:
    found = [
        features(AugmentedPictures(resnet_clip, images, "crop", workers=workers), epoch=3)
        for workers in (0, 1)
    ]
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_features_are_unit_rows_of_whatever_size(
    resnet_clip: ClipModel, images: LabelledImages
) -> None:
    sized = PictureInput(size=128).model(resnet_clip)
    (batch, _) = AugmentedPictures(sized, images, "crop").stream(0, BATCHES)
    assert batch.tokens.shape == (2, 16, 32)
    assert batch.mask is None
    torch.testing.assert_close(batch.tokens.norm(dim=-1), torch.ones(2, 16))
    torch.testing.assert_close(batch.pooled.norm(dim=-1), torch.ones(2))


def test_cutout_blanks_a_part_and_crops_do_not() -> None:
    white = torch.full((3, 40, 60), 255, dtype=torch.uint8)
    blanked = []
    for seed in range(8):
        torch.manual_seed(seed)
        changed = augmentation("cutout", 32)(white)
        assert changed.shape == (3, 32, 32)
        blanked.append(float((changed < 128).float().mean()))
    assert 0 < np.median(blanked) < 0.5
    with pytest.raises(InputError, match="augmentation 'mixup': expected one of crop, cutout"):
        augmentation("mixup", 32)


def test_a_whole_picture_is_squeezed_and_a_crop_is_not(resnet_clip: ClipModel) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (60, 120, 3), dtype=np.uint8)
    sized = PictureInput(48, "whole").model(resnet_clip)
    whole = PictureInput(48, "whole").preprocess(sized)(frame)
    expected = Image.fromarray(frame).resize((48, 48), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(whole, np.asarray(expected))
    crop = PictureInput(48).preprocess(sized)(frame)
    assert crop.shape == (48, 48, 3)
    assert np.abs(crop.astype(int) - whole).mean() > 5
    for wrong, message in (((0,), "above 0"), ((48, "letterbox"), "expected one of crop, whole")):
        with pytest.raises(InputError, match=message):
            PictureInput(*wrong)  # type: ignore[arg-type]


def test_only_models_without_positions_take_another_size(
    resnet_clip: ClipModel, vit_clip: ClipModel
) -> None:
    sized = PictureInput(64).model(resnet_clip)
    found = encode_pictures(sized, np.zeros((1, 64, 64, 3), np.uint8))
    assert found.zero_shot is None
    assert found.patch_features.shape == (1, 4, 32)
    with pytest.raises(InputError, match="takes only 48 × 48 pixels, got 64"):
        PictureInput(64).model(vit_clip)
    assert PictureInput(48).model(vit_clip).image_size == 48


def test_few_shots_take_some_of_each_class() -> None:
    targets = np.array([[1, -1], [1, 1], [1, -1], [-1, -1], [0, 1]])
    found = [few_shots(targets, 1, seed).tolist() for seed in range(20)]
    assert all(row in (0, 1, 2, 4) for rows in found for row in rows)
    assert all((targets[rows] > 0).any(axis=0).all() for rows in found)
    assert len({tuple(rows) for rows in found}) > 2
    assert few_shots(targets, 5, 0).tolist() == [0, 1, 2, 4]
    assert few_shots(targets, 1, 3).tolist() == found[3]
