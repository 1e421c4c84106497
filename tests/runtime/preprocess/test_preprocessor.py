"""Preprocessing against open_clip's own transform, and what a frame may be."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from taidpt.runtime.bundle.input_spec import NV12, BakedResize, InputSpec
from taidpt.runtime.bundle.view import plan_crop
from taidpt.runtime.errors import InputError
from taidpt.runtime.preprocess.preprocessor import Preprocessor
from taidpt.runtime.sources.picture_files import read_image
from tests.runtime.tiny import MEAN, STD
from tests.support import shared_data

# One grey level is 0.015 on the normalised tensor; two ways of rounding may differ by one.
BOUND = 0.03


def spec(size: int = 224) -> InputSpec:
    return InputSpec(size, size, MEAN, STD)


def normalised(crop: np.ndarray) -> np.ndarray:
    return (crop / 255.0 - MEAN) / STD


def open_clip_crop(image: Image.Image, size: int) -> np.ndarray:
    """What open_clip's own transform gives, normalised, [size, size, 3]."""
    import torch
    from open_clip.transform import image_transform

    transform = image_transform(size, is_train=False, mean=MEAN, std=STD)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # they wait spinning, which starves a busy machine
    try:
        return np.asarray(transform(image).permute(1, 2, 0))
    finally:
        torch.set_num_threads(threads)


def generated(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise, edges and a gradient: what resizers differ on."""
    generator = np.random.default_rng(seed)
    frame = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    frame[: height // 2, : width // 2] = np.linspace(0, 255, max(width // 2, 1))[None, :, None]
    frame[height // 2 :, : width // 2] = 255 * (np.arange(max(width // 2, 1)) // 3 % 2)[:, None]
    return frame


SIZES = [(480, 640), (640, 480), (224, 224), (224, 300), (225, 223), (97, 131), (31, 500)]
ODD_SIZES = [(333, 1), (1, 1), (7, 3), (449, 448), (500, 333), (1080, 1920), (1920, 1080)]


@pytest.mark.parametrize("hw", [*SIZES, *ODD_SIZES])
@pytest.mark.parametrize("size", [96, 224])
def test_generated_frames_equal_open_clip(hw: tuple[int, int], size: int) -> None:
    frame = generated(*hw)
    ours = Preprocessor(spec(size))(frame)
    assert ours.shape == (size, size, 3)
    theirs = open_clip_crop(Image.fromarray(frame), size)
    assert np.abs(normalised(ours) - theirs).max() <= BOUND


def test_photographs_equal_open_clip() -> None:
    photos = sorted(shared_data("data/photos").glob("*.jpg"))
    exact, fast = Preprocessor(spec()), Preprocessor(spec(), "fast")
    assert len(photos) > 20
    for path in photos:
        frame, theirs = read_image(path), open_clip_crop(Image.open(path), 224)
        assert np.abs(normalised(exact(frame)) - theirs).max() <= BOUND, path
        difference = np.abs(normalised(fast(frame)) - theirs)
        assert np.quantile(difference, 0.999) <= BOUND, path
        assert difference.max() <= 0.1, path


def natural(height: int, width: int) -> np.ndarray:
    """Like a photograph: detail falls with its fineness, with some crisp edges."""
    generator = np.random.default_rng(5)
    frame = np.zeros((height, width, 3))
    for cells in (2, 5, 12, 40, 120, 400):
        grid = generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        layer = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
        frame += (np.asarray(layer) - 127.5) / cells**0.5
    for _ in range(30):
        y, x = generator.integers(0, height), generator.integers(0, width)
        frame[y : y + height // 9, x : x + width // 9] += generator.normal(0, 40, 3)
    return np.clip(frame + 127.5, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("hw", [(1080, 1920), (720, 1280), (500, 333), (150, 200)])
def test_the_fast_resize_keeps_its_bound(hw: tuple[int, int]) -> None:
    frame = natural(*hw)
    theirs = open_clip_crop(Image.fromarray(frame), 224)
    difference = np.abs(normalised(Preprocessor(spec(), "fast")(frame)) - theirs)
    assert np.quantile(difference, 0.999) <= BOUND
    assert difference.max() <= 0.1


def test_an_unknown_resize_is_refused() -> None:
    with pytest.raises(InputError, match="one of exact, fast, decoder, got 'lanczos'"):
        Preprocessor(spec(), "lanczos")


def test_one_preprocessor_serves_many_threads_and_sizes() -> None:
    preprocess = Preprocessor(spec(96))
    pictures = [generated(100 + 7 * (n % 12), 140 + 3 * (n % 5), n) for n in range(60)]
    alone = [Preprocessor(spec(96))(picture) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(preprocess, pictures))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([32, 96, 224, 336]))
def test_the_crop_is_planned_as_torchvision_plans_it(height: int, width: int, size: int) -> None:
    plan = plan_crop((height, width), (size, size))
    short, long = sorted((height, width))
    assert sorted((plan.resized_height, plan.resized_width)) == [size, int(size * long / short)]
    assert plan.top == int(round((plan.resized_height - size) / 2.0))  # noqa: RUF046
    assert plan.left == int(round((plan.resized_width - size) / 2.0))  # noqa: RUF046
    left, top, right, bottom = plan.box((height, width), (size, size))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_a_frame_of_the_right_size_is_not_copied() -> None:
    frame = generated(96, 96)
    assert np.shares_memory(Preprocessor(spec(96))(frame), frame)
    batch = np.stack([frame, frame])
    assert np.shares_memory(Preprocessor(spec(96)).batch(batch), batch)


@pytest.mark.parametrize("hw", [(96, 96), (130, 200)])
def test_other_kinds_of_frames(hw: tuple[int, int]) -> None:
    preprocess = Preprocessor(spec(96))
    rgb = generated(*hw)
    grey = rgb[:, :, 0]
    from_grey = preprocess(np.repeat(grey[:, :, None], 3, axis=2))
    np.testing.assert_array_equal(preprocess(grey), from_grey)
    np.testing.assert_array_equal(preprocess(grey[:, :, None]), from_grey)
    np.testing.assert_array_equal(preprocess(grey.astype(np.uint16) * 257), from_grey)
    opaque = np.dstack([rgb, np.full(hw, 255, np.uint8)])
    difference = np.abs(preprocess(opaque).astype(int) - preprocess(rgb))
    assert difference.max() <= 1  # Pillow resizes the one, NumPy the other
    mask = grey > 127
    np.testing.assert_array_equal(preprocess(mask), preprocess(mask.astype(np.uint8) * 255))
    np.testing.assert_array_equal(preprocess(rgb[::-1, ::-1]), preprocess(rgb[::-1, ::-1].copy()))


def test_transparent_pixels_weigh_as_open_clip_weighs_them() -> None:
    """One grey level of a premultiplied colour is 255 / alpha levels of the colour itself."""
    frame = np.dstack([generated(150, 170), generated(150, 170, 1)[:, :, 0]])
    image = Image.fromarray(frame)
    alpha = np.asarray(image.resize((108, 96), Image.Resampling.BICUBIC))[:, 6:102, 3]
    theirs = open_clip_crop(image, 96) * STD + MEAN
    levels = np.abs(Preprocessor(spec(96))(frame) - theirs * 255).max(axis=2)
    assert (levels <= 1.01 + 255 / np.maximum(alpha, 1)).all()
    assert (levels[alpha > 200] <= 2.01).all()
    assert levels.mean() < 0.3


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((8, 8, 3)), "got float64; multiply by 255"),
        (np.zeros((3, 8, 8), np.uint8), r"got shape \[3, 8, 8\]; move the channels last"),
        (np.zeros((8, 8, 2), np.uint8), r"got shape \[8, 8, 2\]"),
        (np.zeros(8, np.uint8), r"got shape \[8\]"),
        (np.zeros((0, 8, 3), np.uint8), "empty frame"),
        (np.zeros((8, 8, 3), np.int64), "got int64"),
        (Image.new("RGB", (8, 8)), r"got PIL\.Image\.Image"),
        ("photo.jpg", r"got builtins\.str"),
    ],
)
def test_what_is_no_frame(frame: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Preprocessor(spec(96))(frame)  # type: ignore[arg-type]


def test_a_baked_size_takes_no_other() -> None:
    baked = InputSpec(96, 96, MEAN, STD, baked_resize=BakedResize((64, 64)))
    Preprocessor(baked)(generated(96, 96))
    with pytest.raises(InputError, match=r"takes frames of 96x96 alone, .*, got 100x96"):
        Preprocessor(baked)(generated(96, 100))


def test_nv12_goes_through_as_it_is() -> None:
    colours = BakedResize((64, 64), "bt709", "limited")
    preprocess = Preprocessor(InputSpec(96, 128, MEAN, STD, format=NV12, baked_resize=colours))
    frame = generated(144, 128)[..., 0].copy()
    assert preprocess(frame) is frame
    assert preprocess.batch([frame, frame]).shape == (2, 144, 128)
    for other in (generated(96, 128), frame[:-1], frame.astype(np.float32)):
        with pytest.raises(InputError, match=r"NV12 frames of 128x96, uint8 \[144, 128\], got"):
            preprocess(other)


def test_empty_batches_are_refused() -> None:
    with pytest.raises(InputError, match="at least one frame"):
        Preprocessor(spec(96)).batch([])


def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    frame = np.zeros((20, 30, 3), np.uint8)
    frame[:, :10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    Image.fromarray(frame).save(tmp_path / "t.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "t.png"), np.rot90(frame, -1))


def test_kinds_of_pictures(tmp_path: Path) -> None:
    rgb = generated(20, 30)
    deep = rgb[:, :, 0].astype(np.uint16) * 256 + 7
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png"), deep)
    Image.fromarray(rgb[:, :, 0]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), rgb[:, :, 0])
    palette = Image.fromarray(rgb).quantize(16)
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "palette.png"), np.asarray(palette.convert("RGB"))
    )
    rgba = np.dstack([rgb, rgb[:, :, 0]])
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png"), rgba)
    Image.fromarray(rgb).convert("CMYK").save(tmp_path / "cmyk.jpg")
    assert read_image(tmp_path / "cmyk.jpg").shape == (20, 30, 3)
    Image.fromarray(rgb[:, :, 0] > 127).save(tmp_path / "bits.png")
    assert set(np.unique(read_image(tmp_path / "bits.png"))) == {0, 255}


def bomb(path: Path) -> Path:
    """A PNG header that claims 60,000 × 60,000 pixels."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)
    return path


def test_unreadable_pictures_are_named(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jpg"
    Image.fromarray(generated(200, 300)).save(whole)
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:3000])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no picture")
    cases = {
        "cut.jpg": "cannot be read as a picture: image file is truncated",
        "empty.jpg": r"not a picture of a known format \(the file is empty\)",
        "text.jpg": "not a picture of a known format",
        "none.jpg": "no such file",
        bomb(tmp_path / "bomb.png").name: "too many pixels",
    }
    for name, message in cases.items():
        with pytest.raises(InputError, match=f"{name}: {message}"):
            read_image(tmp_path / name)


def test_a_picture_of_20000_pixels_is_no_bomb(tmp_path: Path) -> None:
    Image.new("L", (20000, 300), 90).save(tmp_path / "wide.png")
    crop = Preprocessor(spec(96))(read_image(tmp_path / "wide.png"))
    assert np.unique(crop).tolist() == [90]
