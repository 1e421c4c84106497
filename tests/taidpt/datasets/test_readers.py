"""The real readers on miniature data sets in the official formats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from taidpt.datasets import DATASET_NAMES, LabelledImages, class_tags, load_dataset
from taidpt.datasets.coco import coco_captions, image_ids, load_coco
from taidpt.datasets.nuswide import load_nuswide
from taidpt.datasets.openimages import narratives
from taidpt.datasets.pictures import picture_loader
from taidpt.datasets.voc import load_voc
from taidpt.metrics import MapSettings, mean_average_precision
from taidpt.runtime.bundle.manifest import InputSpec
from taidpt.runtime.errors import InputError
from taidpt.runtime.preprocess.preprocessor import Preprocessor
from taidpt.runtime.sources.picture_files import read_image
from taidpt.texts.labels import TextLabeler
from tests.taidpt.datasets.official import (
    picture,
    write_captions,
    write_coco,
    write_json,
    write_nuswide,
    write_voc,
)


def target(images: LabelledImages, name: str) -> list[int]:
    return images.targets[:, images.classes.index(name)].tolist()


@pytest.mark.parametrize(("name", "count"), [("voc2007", 20), ("coco2014", 80), ("nuswide", 81)])
def test_class_tables_are_whole_and_unambiguous(name: str, count: int) -> None:
    tags = class_tags(name)
    assert len(tags) == count
    labeler = TextLabeler(tags)
    for index, tag in enumerate(tags):
        for word in tag.words:
            assert labeler.labels(f"here is the {word}.") == (index,), word


def test_voc_counts_difficult_apart(tmp_path: Path) -> None:
    objects = {
        "000001": [("dog", 0), ("person", 1)],
        "000002": [("person", 1), ("person", 0), ("tvmonitor", 0)],
        "000004": [],
    }
    write_voc(tmp_path, 2007, "test", objects)
    images = load_dataset("voc2007", tmp_path)
    assert images.ids == ("000001", "000002", "000004")
    assert target(images, "dog") == [1, -1, -1]
    assert target(images, "person") == [0, 1, -1]
    assert target(images, "tv monitor") == [-1, 1, -1]
    scores = np.array([[3.0], [2.0], [1.0]])
    person = images.targets[:, [images.classes.index("person")]]
    assert mean_average_precision(scores, person).value == pytest.approx(50)
    ignoring = MapSettings(difficult="ignore")
    assert mean_average_precision(scores, person, ignoring).value == pytest.approx(100)


def test_each_data_set_has_a_train_split(tmp_path: Path) -> None:
    write_voc(tmp_path, 2007, "trainval", {"000005": [("dog", 0)]})
    write_coco(tmp_path, "train2014", {5: [(18, 0)]})
    write_nuswide(tmp_path, {"dog\\5.jpg": {"dog"}}, "Train")
    for name in ("voc2007", "coco2014", "nuswide"):
        images = load_dataset(name, tmp_path, "train")
        assert target(images, "dog") == [1], name


def test_voc_with_the_spelling_of_published_runs(tmp_path: Path) -> None:
    write_voc(tmp_path, 2007, "test", {"000001": [("tvmonitor", 0), ("motorbike", 0)]})
    ours = load_dataset("voc2007", tmp_path)
    images = load_dataset("voc2007", tmp_path, official_names=True)
    changed = {
        new: old for old, new in zip(ours.classes, images.classes, strict=True) if old != new
    }
    assert changed == {
        "diningtable": "dining table",
        "motor bike": "motorbike",
        "tvmonitor": "tv monitor",
    }
    np.testing.assert_array_equal(images.targets, ours.targets)
    words = {tag.name: tag.words for tag in images.tags}
    assert "tv monitor" in words["tvmonitor"]
    assert "motorbike" in words["motor bike"]


def test_voc_is_found_from_each_of_its_folders(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, 2007, "test", {"000001": [("cat", 0)]})
    for root in (tmp_path, tmp_path / "VOCdevkit", folder):
        assert len(load_voc(root)) == 1


def test_coco_counts_crowds_and_unlabelled_pictures(tmp_path: Path) -> None:
    write_coco(tmp_path, "val2014", {139: [(1, 1), (18, 0), (18, 0)], 42: [], 7: [(17, 0)]})
    images = load_dataset("coco2014", tmp_path)
    assert images.ids == ("139", "42", "7")
    assert len(images.classes) == 80
    assert target(images, "person") == [1, -1, -1]
    assert target(images, "dog") == [1, -1, -1]
    assert target(images, "cat") == [-1, -1, 1]
    assert (images.targets[1] == -1).all()


def test_coco_captions_one_a_picture_and_without_the_leak(tmp_path: Path) -> None:
    captions = {5: ["B second", "A first"], 139: ["a leaked one"], 7: ["C"]}
    path = write_captions(tmp_path, "train2017", captions)
    assert list(coco_captions(path)) == ["A first", "a leaked one", "C"]
    instances = write_coco(tmp_path, "val2014", {139: [(1, 0)]})
    assert list(coco_captions(path, leave_out=image_ids(instances))) == ["A first", "C"]


def test_nuswide_reads_its_lists(tmp_path: Path) -> None:
    pictures = {
        "actor\\0001_2124494179.jpg": {"person", "window"},
        "zebra\\0002_7.jpg": set(),
        "zebra\\0003_8.jpg": {"zebra", "grass"},
    }
    write_nuswide(tmp_path, pictures)
    images = load_nuswide(tmp_path)
    assert images.paths[0].is_file()
    assert len(images.classes) == 81
    assert target(images, "zebra") == [-1, -1, 1]
    assert target(images, "window") == [1, -1, -1]
    labelled = load_dataset("nuswide-labelled", tmp_path)
    assert labelled.ids == ("actor\\0001_2124494179.jpg", "zebra\\0003_8.jpg")
    np.testing.assert_array_equal(labelled.targets, images.targets[[0, 2]])


def test_narratives_stream_over_all_files(tmp_path: Path) -> None:
    for number in range(2):
        name = f"open_images_train_v6_localized_narratives-0000{number}-of-00002.jsonl"
        row = {"dataset_id": "open_images_train", "image_id": "a", "caption": f"text {number}"}
        (tmp_path / name).write_text(json.dumps({**row, "timed_caption": []}) + "\n")
    assert list(narratives(tmp_path)) == ["text 0", "text 1"]


def test_pictures_stream_in_file_order(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, 2007, "test", {f"{n:06d}": [("dog", 0)] for n in range(5)})
    for number in range(5):
        picture(folder / "JPEGImages" / f"{number:06d}.jpg", grey=40 * number)
    crop = Preprocessor(InputSpec(8, 8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))
    for workers in (0, 2):
        batches = list(picture_loader(load_voc(tmp_path), crop, batch_size=2, workers=workers))
        assert [tuple(frames.shape) for frames, _ in batches] == [(2, 8, 8, 3)] * 2 + [(1, 8, 8, 3)]
        greys = [float(frame.float().mean()) for frames, _ in batches for frame in frames]
        assert greys == pytest.approx([0, 40, 80, 120, 160], abs=2)


def test_toy_world_is_a_data_set_too(tmp_path: Path) -> None:
    splits = {
        split: load_dataset("toyworld", tmp_path, split) for split in ("test", "train", "val")
    }
    for split, images in splits.items():
        assert len(images.classes) == 60
        assert (images.targets == 1).sum(axis=0).min() >= 20
        assert read_image(images.paths[0]).shape == (160, 160, 3)
        assert load_dataset("toyworld", tmp_path, split).paths == images.paths
    assert splits["train"].name == "toyworld train"
    first = {images.paths[0].read_bytes() for images in splits.values()}
    assert len(first) == 3
    with pytest.raises(InputError, match="no split 'dev'; there are test, train, val"):
        load_dataset("toyworld", tmp_path, "dev")


def test_the_toy_world_is_unpacked_once(tmp_path: Path) -> None:
    path = load_dataset("toyworld", tmp_path, "train").paths[0]
    stamp = path.stat().st_mtime_ns
    load_dataset("toyworld", tmp_path, "train")
    assert path.stat().st_mtime_ns == stamp
    whole = path.read_bytes()
    for damaged in (whole[:-1], bytes(len(whole))):
        path.write_bytes(damaged)
        load_dataset("toyworld", tmp_path, "train")
        assert path.read_bytes() == whole
    assert not list(path.parent.glob(".*"))


def test_missing_files_are_one_line(tmp_path: Path) -> None:
    for name in set(DATASET_NAMES) - {"toyworld"}:
        with pytest.raises(InputError, match="not found"):
            load_dataset(name, tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        load_dataset("voc2007", tmp_path / "nothing")
    with pytest.raises(InputError, match="has no split 'val'; there are test, train"):
        load_dataset("voc2007", tmp_path, "val")
    with pytest.raises(InputError, match="no data set 'voc'"):
        load_dataset("voc", tmp_path)


def test_voc_bad_input(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, 2007, "test", {"000001": [("unicorn", 0)], "000002": []})
    with pytest.raises(InputError, match=r"000001\.xml: an object of the unknown class 'unicorn'"):
        load_voc(tmp_path)
    (folder / "Annotations/000001.xml").write_text("<annotation><object>")
    with pytest.raises(InputError, match=r"000001\.xml: not valid XML"):
        load_voc(tmp_path)
    (folder / "Annotations/000001.xml").write_text("<annotation/>")
    (folder / "JPEGImages/000002.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 2 pictures are missing, the first .*000002\.jpg"):
        load_voc(tmp_path)
    (folder / "Annotations/000002.xml").unlink()
    with pytest.raises(InputError, match=r"000002\.xml is missing"):
        load_voc(tmp_path)


def test_coco_bad_input(tmp_path: Path) -> None:
    path = write_coco(tmp_path, "val2014", {1: [(99, 0)]})
    with pytest.raises(InputError, match="annotation 1 is of the unknown class 99"):
        load_coco(tmp_path)
    write_coco(tmp_path, "val2014", {1: [(1, 0)]}, categories={1: "unicorn"})
    with pytest.raises(InputError, match="unknown classes unicorn"):
        load_coco(tmp_path)
    document = json.loads(path.read_text())
    write_json(path, {**document, "images": []})
    with pytest.raises(InputError, match="unknown picture 1"):
        load_coco(tmp_path)
    path.write_text('{"images": [')
    with pytest.raises(InputError, match="not a readable JSON file"):
        load_coco(tmp_path)


def test_captions_bad_input(tmp_path: Path) -> None:
    path = write_captions(tmp_path, "train2017", {1: ["a"], 2: []})
    with pytest.raises(InputError, match="1 pictures have no caption, the first is 2"):
        list(coco_captions(path))
    row = {"id": 8, "image_id": 1}
    write_json(path, {"images": [{"id": 1}], "annotations": [row]})
    with pytest.raises(InputError, match="annotation 8 has no caption"):
        list(coco_captions(path))
    write_json(path, {"images": [{"id": 1}], "annotations": [{**row, "image_id": 3}]})
    with pytest.raises(InputError, match="annotation 8 has the unknown picture 3"):
        list(coco_captions(path))


def test_nuswide_bad_input(tmp_path: Path) -> None:
    folder = write_nuswide(tmp_path, {"a\\1.jpg": {"cat"}, "a\\2.jpg": set()})
    column = folder / "Groundtruth/TrainTestLabels/Labels_cat_Test.txt"
    column.write_text("1\n")
    with pytest.raises(InputError, match=r"Labels_cat_Test\.txt: 1 lines, but .* names 2 pictures"):
        load_nuswide(tmp_path)
    column.write_text("1\n2\n")
    with pytest.raises(InputError, match="line 2: expected 0 or 1, got '2'"):
        load_nuswide(tmp_path)
    (folder / "ConceptsList/Concepts81.txt").write_text("cat\nunicorn\n")
    with pytest.raises(InputError, match="unknown concepts unicorn"):
        load_nuswide(tmp_path)
