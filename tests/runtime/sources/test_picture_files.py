"""Pictures of every format, folders of them, and files that only look like pictures."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from taidpt.runtime.errors import InputError
from taidpt.runtime.sources import picture_files
from taidpt.runtime.sources.base import SourceOptions
from taidpt.runtime.sources.open import open_source
from taidpt.runtime.sources.picture_files import read_image
from tests.runtime.sources.avif_grid import avif_grid
from tests.runtime.videos import colour_video

RED = (200, 30, 30)


def picture(path: Path, form: str | None = None, **options: object) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.new("RGB", (32, 24), RED).save(path, form, **options)
    return path


def test_a_folder_takes_all_that_pillow_reads_and_names_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "pictures"
    names = ["a.JPG", "b.jfif", "c.jpe", "d.jp2", "e.mpo", "f.TGA", "g.pnm", "h.webp", "i.apng"]
    forms = ["JPEG", "JPEG", "JPEG", "JPEG2000", "MPO", "TGA", "PPM", "WEBP", "PNG"]
    if features.check("avif"):
        names, forms = [*names, "j.avif"], [*forms, "AVIF"]
    for name, form in zip(names, forms, strict=True):
        picture(folder / name, form)
    picture(folder / "k.part", "PNG")
    picture(folder / "no suffix", "GIF")
    for name in ("notes.txt", "labels.json", "model.bin", "z.db"):
        (folder / name).write_text("no picture")
    picture(folder / "inner" / "m.png")
    (folder / "link").symlink_to(folder / "inner", target_is_directory=True)
    frames = list(open_source(folder))
    assert [Path(frame.source).name for frame in frames] == sorted([*names, "k.part", "no suffix"])
    for frame in frames:
        assert np.abs(frame.image[12, 16].astype(int) - RED).max() < 30
    [said] = [record.getMessage() for record in caplog.records]
    assert "4 files that are not pictures or videos (labels.json, model.bin, notes.txt, …)" in said
    assert "1 linked folders (link)" in said
    assert "1 folders, without --recursive (inner)" in said
    assert len(list(open_source(folder, SourceOptions(recursive=True)))) == len(frames) + 1


def test_a_folder_of_videos_and_pictures_gives_both(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.MKV"):
        colour_video(tmp_path / name, 5)
    videos = list(open_source(tmp_path))
    assert [Path(frame.source).name for frame in videos] == ["a.MKV"] * 5 + ["b.mp4"] * 5
    picture(tmp_path / "z.png")
    assert [frame.time_s is None for frame in open_source(tmp_path)] == [True] + [False] * 10


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("photo.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n"),
        ("photo.png", b"%PDF-1.4\n"),
        ("photo.webp", b"\x01\x00\x09\x00\x00\x03"),
        ("._photo.jpg", b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X"),
        ("photo.tiff", b"SIMPLE  =                    T"),
    ],
)
def test_other_formats_under_a_pictures_name_start_no_program(
    tmp_path: Path, name: str, head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", refuse)
    (tmp_path / name).write_bytes(head * 20)
    with pytest.raises(InputError, match=r"not a picture of a known format|cannot be read as a"):
        read_image(tmp_path / name)


def test_animations_and_pages_say_that_the_first_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pages = [Image.new("RGB", (16, 16), colour) for colour in (RED, (0, 255, 0))]
    for name, what in (("a.webp", "frame"), ("b.png", "frame"), ("c.tif", "page")):
        caplog.clear()
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:], lossless=True)
        assert read_image(tmp_path / name)[8, 8].tolist()[:3] == list(RED)
        assert f"{name}: has 2 {what}s; the first one is used" in caplog.text
    caplog.clear()
    pages[0].save(tmp_path / "stereo.mpo", save_all=True, append_images=pages[1:])
    read_image(tmp_path / "stereo.mpo")
    assert not caplog.records


def test_pixels_are_bound_by_the_machines_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (1000, 1001)).save(tmp_path / "a.png")
    monkeypatch.setattr(picture_files, "_memory_bytes", lambda: 32_000_000)
    with pytest.raises(
        InputError, match=r"1000x1001 is too many pixels .* 0\.0 GB .* allows 1 million pixels"
    ):
        read_image(tmp_path / "a.png")
    Image.new("L", (1000, 1000)).save(tmp_path / "b.png")
    assert read_image(tmp_path / "b.png").shape == (1000, 1000)


def test_bands_of_rows_are_the_whole_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_files, "_BAND_BYTES", 1000)
    for channels in (1, 3, 4):
        shape = (37, 29) if channels == 1 else (37, 29, channels)
        pixels = np.random.default_rng(channels).integers(0, 256, shape).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pixels)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_an_avif_is_turned_upright(tmp_path: Path) -> None:
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, :32] = RED
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    Image.fromarray(pixels).save(tmp_path / "a.avif", exif=exif, quality=90)
    for name in ("a.avif", "renamed"):
        (tmp_path / name).write_bytes((tmp_path / "a.avif").read_bytes())
        (frame,) = list(open_source(tmp_path / name))
        assert frame.image.shape == (64, 32, 3)
        assert frame.image[5, 16, 0] > 150
        assert frame.image[60, 16, 0] < 60


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
@pytest.mark.parametrize("name", ["grid.avif", "renamed.jpg", "without"])
def test_an_avif_of_tiles_is_one_whole_picture(tmp_path: Path, name: str) -> None:
    """FFmpeg shows each tile as a video of its own."""
    colours = np.array([RED, (20, 160, 40), (30, 40, 190)], np.uint8)
    tiles = [np.broadcast_to(colour, (64, 96, 3)).copy() for colour in colours]
    (tmp_path / name).write_bytes(avif_grid(tiles))
    (frame,) = list(open_source(tmp_path / name))
    assert (frame.image.shape, frame.time_s) == ((64, 288, 3), None)
    found = frame.image[32, [48, 144, 240]].astype(int)
    assert np.abs(found - colours).max() < 12


def test_heic_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" * 9)
    with pytest.raises(InputError, match="HEIF or AVIF, which this Pillow cannot read") as error:
        list(open_source(tmp_path / "a.heic"))
    assert "\n" not in str(error.value)


def test_one_unreadable_picture_is_a_warning_and_no_readable_one_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "._a.png").write_bytes(b"\x00\x05\x16\x07 resource fork")
    caplog.set_level(logging.WARNING)
    assert len(list(open_source(tmp_path))) == 1
    assert "passed over" in caplog.text
    assert "1 of 2 pictures could not be read" in caplog.text
    (tmp_path / "a.png").write_bytes(b"broken")
    with pytest.raises(InputError, match="2 of 2 pictures could not be read"):
        list(open_source(tmp_path))
