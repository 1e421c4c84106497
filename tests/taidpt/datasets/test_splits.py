"""Long-tailed groups, few-shot episodes and zero-shot splits, from files as officially given."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from taidpt.datasets import check_root, class_tags, load_dataset
from taidpt.datasets.longtail import load_coco_mlt, load_voc_mlt
from taidpt.datasets.plain_pickle import load_plain_pickle
from taidpt.datasets.splits import load_coco_zero_shot, load_laso
from taidpt.runtime.errors import InputError
from tests.taidpt.datasets.official import write_coco, write_long_tail, write_voc


def groups(classes: int) -> dict[str, set[int]]:
    return {"head": {0, 3}, "middle": {1}, "tail": set(range(classes)) - {0, 1, 3}}


def test_voc_mlt_has_its_groups(tmp_path: Path) -> None:
    lists = tmp_path / "appendix/VOCdevkit/longtail2012"
    write_long_tail(lists, groups(20), ["2008_000023"], "img_id.txt")
    write_voc(tmp_path, 2007, "test", {"000001": [("dog", 0)]})
    write_voc(tmp_path, 2012, "trainval", {"2008_000023": [("cat", 0)], "2008_000028": []})
    images = load_dataset("voc-mlt", tmp_path)
    assert images.groups["head"] == (0, 3)
    assert images.groups["medium"] == (1,)
    assert len(images.groups["tail"]) == 17
    assert load_voc_mlt(tmp_path, "train").ids == ("2008_000023",)


def test_coco_mlt_trains_on_the_listed_pictures(tmp_path: Path) -> None:
    lists = tmp_path / "appendix/coco/longtail2017"
    write_long_tail(lists, groups(80), ["9", "4"], "img_id.pkl")
    write_coco(tmp_path, "val2017", {1: [(1, 0)]})
    write_coco(tmp_path, "train2017", {4: [(1, 0)], 8: [], 9: [(17, 0)]})
    assert load_dataset("coco-mlt", tmp_path).ids == ("1",)
    train = load_coco_mlt(tmp_path, "train")
    assert train.ids == ("9", "4")
    assert train.targets[0, train.classes.index("cat")] == 1
    (lists / "img_id.pkl").write_text("5\n")
    with pytest.raises(InputError, match="1 ids are not COCO's, the first 5"):
        load_coco_mlt(tmp_path, "train")


def test_groups_that_miss_a_class_are_refused(tmp_path: Path) -> None:
    lists = tmp_path / "appendix/VOCdevkit/longtail2012"
    write_long_tail(lists, {"head": {0}, "middle": {1}, "tail": {2}}, ["a"], "img_id.txt")
    write_voc(tmp_path, 2007, "test", {"000001": [("dog", 0)]})
    with pytest.raises(InputError, match="each of 20 classes in exactly one group"):
        load_voc_mlt(tmp_path)


def test_laso_episode_is_read_by_position(tmp_path: Path) -> None:
    dog = class_tags("coco2014").names.index("dog")
    write_coco(tmp_path, "train2014", {50: [(1, 0)], 40: [(18, 0)], 30: [], 20: [(18, 0), (2, 0)]})
    folder = tmp_path / "data_for_augmentation"
    folder.mkdir()
    path = folder / "1shotRun3ClassIdxDict.pkl"
    path.write_bytes(pickle.dumps({dog: [3, 1], 1: [3]}))
    images = load_laso(tmp_path, "train-3")
    assert images.ids == ("40", "20")
    assert images.classes == ("bicycle", "dog")
    path.write_bytes(pickle.dumps({dog: [4]}))
    with pytest.raises(InputError, match="names picture 4, but train2014 has 4"):
        load_laso(tmp_path, "train-3")


def test_laso_is_tested_on_its_novel_classes(tmp_path: Path) -> None:
    dog = class_tags("coco2014").names.index("dog")
    write_coco(tmp_path, "train2014", {50: [(1, 0)], 40: [(18, 0), (1, 0)], 20: [(2, 0)]})
    write_coco(tmp_path, "val2014", {7: [(18, 0)], 8: [(1, 0)]})
    folder = tmp_path / "LaSO/data_for_augmentation"
    folder.mkdir(parents=True)
    (folder / "5shotRun1ClassIdxDict.pkl").write_bytes(pickle.dumps({dog: [1], 1: [2]}))
    train = load_dataset("coco-laso-5", tmp_path, "train")
    assert (train.classes, train.ids) == (("bicycle", "dog"), ("40", "20"))
    assert train.targets.tolist() == [[-1, 1], [1, -1]]
    (folder / "5shotRun3ClassIdxDict.pkl").write_bytes(pickle.dumps({dog: [1], 1: [0]}))
    third = load_dataset("coco-laso-5", tmp_path, "train-3")
    assert (third.ids, third.name) == (("50", "40"), "coco laso 5-shot run 3")
    with pytest.raises(InputError, match="no split 'train-11'"):
        load_dataset("coco-laso-5", tmp_path, "train-11")
    test = load_dataset("coco-laso-5", tmp_path)
    assert test.targets.tolist() == [[-1, 1], [-1, -1]]


def write_zero_shot(root: Path) -> None:
    names = class_tags("coco2014").names
    seen, unseen = {0, names.index("cat")}, {names.index("dog")}
    write_coco(
        root,
        "val2014",
        {5: [(1, 0), (18, 0)], 6: [], 7: [(17, 0)]},
        categories={1: "person", 17: "cat", 18: "dog"},
        name="instances_val2014_gzsi_48_17.json",
    )
    split = pickle.dumps({"train": seen, "test": unseen})
    (root / "coco/annotations/cls_ids.pickle").write_bytes(split)


def test_zero_shot_split_takes_its_classes_from_the_official_files(tmp_path: Path) -> None:
    write_zero_shot(tmp_path)
    images = load_dataset("coco-48-17", tmp_path)
    assert images.classes == ("person", "cat", "dog")
    assert images.groups == {"seen": (0, 1), "unseen": (2,)}
    assert images.ids == ("5", "7"), "pictures without any object are not in the official split"
    assert images.targets.tolist() == [[1, -1, 1], [-1, 1, -1]]


def test_zero_shot_split_bad_input(tmp_path: Path) -> None:
    write_zero_shot(tmp_path)
    with pytest.raises(InputError, match=r"unseen_48_17.*Google Drive"):
        load_coco_zero_shot(tmp_path, "unseen")
    path = tmp_path / "coco/annotations/cls_ids.pickle"
    path.write_bytes(pickle.dumps({"train": {0, 1}, "test": {15}}))
    with pytest.raises(InputError, match="class 'cat' at the place of 'bicycle'"):
        load_coco_zero_shot(tmp_path)
    path.write_bytes(pickle.dumps({"train": {0, 1}, "test": {1}}))
    with pytest.raises(InputError, match="overlap"):
        load_coco_zero_shot(tmp_path)


class _Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch attacked",)


def test_no_pickle_runs_code(tmp_path: Path) -> None:
    path = tmp_path / "split.pkl"
    path.write_bytes(pickle.dumps({"head": _Attack()}))
    with pytest.raises(InputError, match=r"refused or damaged \(it asks for posix\.system\)"):
        load_plain_pickle(path, "nowhere")
    path.write_bytes(b"\x80\x04}")
    with pytest.raises(InputError, match=r"split\.pkl"):
        load_plain_pickle(path, "nowhere")
    with pytest.raises(InputError, match="is missing; it comes from nowhere"):
        load_plain_pickle(tmp_path / "none.pkl", "nowhere")


def test_check_says_what_is_there_and_where_the_rest_comes_from(tmp_path: Path) -> None:
    write_zero_shot(tmp_path)
    write_voc(tmp_path, 2007, "test", {"000001": [("dog", 0)]})
    states = {found.name: found.state for found in check_root(tmp_path)}
    assert states["VOC2007"] == "in part"
    assert states["NUS-WIDE"] == "missing"
    command = [sys.executable, "-m", "taidpt", "research", "datasets", "--root", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "  there    ImageSets/Main/test.txt" in done.stdout
    assert "  in part  JPEGImages/*.jpg (1 of 9,963)" in done.stdout
    assert "from https://github.com/leokarlin/LaSO" in done.stdout
    command[-1] = str(tmp_path / "no")
    nothing = subprocess.run(command, capture_output=True, text=True, check=False)
    assert nothing.returncode == 2
    assert "there is no such folder" in nothing.stderr
