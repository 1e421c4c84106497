"""`taidpt adapt`, from pictures to a bank file; each bad input is one line and writes nothing."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taidpt.cli import COMMANDS
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.errors import TaidptError
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.tiny import NAMES, TinySpec, tiny_bundle
from tests.runtime.videos import write_video

# One texture a tag, a patch of 4 × 4 pixels; the last tag's is in no frame.
TEXTURES = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
GREY = np.full((1, 4, 4, 3), 220, np.uint8)
FRAMES = 96


@dataclasses.dataclass(frozen=True)
class Place:
    """A folder with a bundle, a bank whose local rows are off, and frames.

    Attributes:
        folder: of all of them.
        shown: which tags each frame shows, bool [N, C].
    """

    folder: Path
    shown: np.ndarray

    def adapt(self, *arguments: str) -> tuple[int, str, list[str]]:
        """Exit code, standard output and error lines, as the command line's entry makes them."""
        output, errors = io.StringIO(), io.StringIO()
        here = Path.cwd()
        os.chdir(self.folder)
        try:
            with redirect_stdout(output), redirect_stderr(errors):
                command = COMMANDS["adapt"].load()
                command.main([*arguments, "--threads", "1"], "adapt", standalone_mode=False)
        except TaidptError as error:
            print(error, file=errors)
            return error.exit_code, output.getvalue(), errors.getvalue().splitlines()
        finally:
            os.chdir(here)
        return 0, output.getvalue(), errors.getvalue().splitlines()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("adapt")
    path = tiny_bundle(folder / "street.taidpt", TinySpec(bank_as="input", thresholds=(1.0,)))
    tiny_bundle(folder / "constant.taidpt", TinySpec(thresholds=(1.0,)))
    generator = np.random.default_rng(5)
    labels = np.where(
        generator.random((FRAMES, 16)) < 0.2, generator.integers(0, 4, (FRAMES, 16)), 5
    )
    noise = generator.normal(0, 25, (FRAMES, 16, 16, 3))
    textures = np.concatenate([TEXTURES, GREY])[labels].reshape(FRAMES, 4, 4, 4, 4, 3)
    frames = textures.swapaxes(2, 3).reshape(FRAMES, 16, 16, 3)
    noisy = np.clip(frames + noise, 0, 255).astype(np.uint8)
    (folder / "frames").mkdir()
    for index, frame in enumerate(noisy):
        Image.fromarray(frame).save(folder / "frames" / f"{index:03}.png")
    for tag, name in enumerate(("red thing", "cat")):
        (folder / name).mkdir()
        for index in range(3):
            picture = _full(TEXTURES[2 * tag]) // 8 * (8 - index)
            Image.fromarray(picture).save(folder / name / f"{index}.png")
    with Tagger.load(path, device="cpu", threads=1) as tagger:
        flat = tagger.features(list(map(_full, (*TEXTURES, *GREY))))
        bank = tagger.class_bank
    rows = _unit(flat.whole[:5] - flat.whole[5])
    off = _unit(rows + 0.8 * _unit(generator.normal(size=rows.shape)))
    off[-1] = -flat.whole[5]  # the opposite of most patches
    dataclasses.replace(bank, global_embeddings=_f32(rows), local_embeddings=_f32(off)).save(
        folder / "tags.bank"
    )
    return Place(folder, (labels[..., None] == np.arange(5)).any(axis=1))


def _full(texture: np.ndarray) -> np.ndarray:
    """A frame of one texture."""
    return np.tile(texture, (4, 4, 1))


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def _f32(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows, np.float32)


def test_frames_become_a_bank_that_the_tagger_takes(place: Place) -> None:
    command = [sys.executable, "-m", "taidpt", "adapt", "street.taidpt", "--bank", "tags.bank"]
    command += ["--frames", "frames", "-o", "site.bank"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=place.folder, check=True)
    text = done.stdout
    assert done.stderr == ""
    assert "café keeps its row: no confident patch" in text
    assert "use it: taidpt tag street.taidpt SOURCE --bank site.bank" in text
    before = ClassBank.load(place.folder / "tags.bank")
    after = ClassBank.load(place.folder / "site.bank")
    assert after.names == NAMES
    moved = (before.local_embeddings != after.local_embeddings).any(axis=1)
    assert moved.sum() >= 2
    assert not moved[-1]
    assert after.metadata["adaptation"]["frames"] == FRAMES
    with Tagger.load(place.folder / "street.taidpt", device="cpu", threads=1) as tagger:
        tagger.use_bank(after)
        assert tagger.names == NAMES


def test_adapted_rows_leave_the_bundle_and_the_graphs_inputs_as_they_are(place: Place) -> None:
    """So an engine, its size and its time are the same: only the values of four inputs differ."""
    before = _contents(place.folder / "street.taidpt")
    arguments = ("street.taidpt", "--bank", "tags.bank", "--frames", "frames", "-o", "rows.bank")
    assert place.adapt(*arguments)[0] == 0
    assert _contents(place.folder / "street.taidpt") == before
    with Tagger.load(place.folder / "street.taidpt", device="cpu", threads=1) as tagger:
        inputs = []
        for name in ("tags.bank", "rows.bank"):
            tagger.use_bank(place.folder / name)
            inputs.append(tagger.bank_inputs)
    first, second = inputs
    assert [(name, array.shape, array.dtype) for name, array in first.items()] == [
        (name, array.shape, array.dtype) for name, array in second.items()
    ]
    assert not np.array_equal(first["local_embeddings"], second["local_embeddings"])


def test_frames_of_another_camera_are_noticed(place: Place) -> None:
    first = ("street.taidpt", "--bank", "tags.bank", "--frames", "frames", "-o", "camera.bank")
    assert place.adapt(*first)[0] == 0
    _spoil(place.folder)
    before = _contents(place.folder)
    again = ("street.taidpt", "--bank", "camera.bank", "-o", "camera2.bank")
    for arguments in (("--frames", "same"), ("--examples", "cat", "--frames", "same")):
        code, text, errors = place.adapt(*again, *arguments)
        assert (code, text) == (2, "")
        assert len(errors) == 1, errors
        assert "--frames same: another camera: 0% of these frames" in errors[0]
        assert _contents(place.folder) == before
    code, text, errors = place.adapt(*again, "--examples", "cat", "--frames", "frames")
    assert (code, errors) == (0, [])
    marks = [
        ClassBank.load(place.folder / name).metadata["adaptation"]["scene"]
        for name in ("camera.bank", "camera2.bank")
    ]
    assert marks[0] == marks[1]
    assert place.adapt(*again, "--examples", "cat", "--examples", "red thing")[0] == 0
    kept = ClassBank.load(place.folder / "camera2.bank").metadata["adaptation"]
    assert kept["scene"] == marks[0]


def test_the_file_is_named_after_the_bundle_and_a_dry_run_writes_none(place: Place) -> None:
    arguments = ("street.taidpt", "--bank", "tags.bank", "--frames", "frames")
    code, text, _ = place.adapt(*arguments, "--dry-run")
    assert code == 0
    assert "tags have new rows" in text
    assert not (place.folder / "street.bank").exists()
    assert place.adapt(*arguments)[0] == 0
    assert ClassBank.load(place.folder / "street.bank").names == NAMES


def test_a_constant_bank_says_how_to_go_on(place: Place) -> None:
    code, text, _ = place.adapt(
        "constant.taidpt", "--bank", "tags.bank", "--frames", "frames", "-o", "constant.bank"
    )
    assert code == 0
    assert "taidpt-export constant.bank -o NAME.taidpt" in text


def test_examples_are_a_new_tag_and_a_better_one(place: Place) -> None:
    code, text, errors = place.adapt(
        "street.taidpt", "--examples", "red thing", "--examples", "cat", "-o", "more.bank"
    )
    assert (code, errors) == (0, [])
    assert text.splitlines()[:2] == [
        "red thing: from 3 pictures, a new tag",
        "cat: from 3 pictures, with its present rows as prior",
    ]
    bank = ClassBank.load(place.folder / "more.bank")
    assert bank.names == (*NAMES, "red thing")
    with Tagger.load(place.folder / "street.taidpt", device="cpu", threads=1) as tagger:
        tagger.use_bank(bank)
        assert "red thing" in tagger(place.folder / "red thing" / "0.png")
        assert "red thing" not in tagger(place.folder / "cat" / "0.png")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "nothing to adapt to: give --frames SOURCE, or --examples FOLDER"),
        (("--frames", "frames/000.png"), "1 frame: adapting needs at least 16"),
        (("--frames", "noise"), "no tag has confident patches in three frames"),
        (("--frames", "same"), "are all the same to the model"),
        (("--frames", "nowhere"), "nowhere"),
        (("--examples", "cat"), "one folder of examples needs frames that do not show the tag"),
        (("--examples", "cat/0.png"), "expected a folder of pictures whose name is the tag"),
        (("--examples", "cat", "--examples", "./cat/"), "'cat' is given twice"),
        (("--examples", "half", "--examples", "cat"), "half: 2 of 4 pictures cannot be read"),
        (("--examples", "empty", "--examples", "cat"), "no pictures or videos in this folder"),
        (("--examples", "films", "--examples", "cat"), "holds a video; examples are pictures"),
        (("--frames", "frames", "-o", "frames"), "is a folder"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(
    place: Place, arguments: tuple[str, ...], expected: str
) -> None:
    _spoil(place.folder)
    before = _contents(place.folder)
    extra = () if "-o" in arguments else ("-o", "new.bank")
    code, text, errors = place.adapt("street.taidpt", "--bank", "tags.bank", *arguments, *extra)
    assert code == 2
    assert text == ""
    assert len(errors) == 1, errors
    assert expected in errors[0]
    assert _contents(place.folder) == before


@pytest.mark.parametrize("output", ["patch_features", "global_features"])
def test_a_bundle_without_one_of_the_features_is_one_line(place: Place, output: str) -> None:
    path = place.folder / f"no-{output}.taidpt"
    tiny_bundle(path, TinySpec(bank_as="input"))
    manifest = json.loads((path / "manifest.json").read_text("utf-8"))
    manifest["graph"]["outputs"].remove(output)
    (path / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    code, _, errors = place.adapt(path.name, "--frames", "frames", "-o", "new.bank")
    assert code == 2
    assert len(errors) == 1, errors
    assert output.replace("_", " ") in errors[0].replace("_", " ")
    assert not (place.folder / "new.bank").exists()


def _spoil(folder: Path) -> None:
    """Sources of which nothing can be learned."""
    if (folder / "noise").exists():
        return
    for name in ("noise", "same", "half", "empty", "films"):
        (folder / name).mkdir()
    same = _full(TEXTURES[0])
    generator = np.random.default_rng(1)
    for index in range(20):
        grey = np.full((16, 16, 3), generator.integers(200, 240), np.uint8)
        Image.fromarray(grey).save(folder / "noise" / f"{index:02}.png")
        Image.fromarray(same).save(folder / "same" / f"{index:02}.png")
    write_video(folder / "films" / "one.mp4", [same] * 2)
    for index in range(4):
        picture = folder / "half" / f"{index}.png"
        Image.fromarray(same).save(picture)
        if index % 2:
            picture.write_bytes(picture.read_bytes()[:60])


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
