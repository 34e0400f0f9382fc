"""Readers: what is written comes back; what is wrong is named with its file, and with its line where there is one."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from dataset_files import ITEMS, NAMES, Item, write_coco, write_image, write_text, write_voc, write_wider, write_yolo
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets.catalog import open_dataset
from datasets.config import DataConfig, DataError
from datasets.dataset import Dataset

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def config_for(root: Path, style: str, **more: object) -> DataConfig:
    entry = {"voc": "V/train", "coco": "train.json:pictures", "yolo": "images/train", "wider": "train"}[style]
    names = None if style == "wider" else NAMES
    return DataConfig(**{"path": root, "format": style, "train": entry, "names": names, **more})


def write(root: Path, style: str, items: tuple[Item, ...] = ITEMS) -> None:
    {"voc": write_voc, "coco": write_coco, "yolo": write_yolo, "wider": write_wider}[style](root, items)


def by_name(dataset: Dataset) -> dict[str, int]:
    return {Path(image_id).stem: index for index, image_id in enumerate(dataset.image_ids)}


@pytest.mark.parametrize("style", ["voc", "coco", "yolo", "wider"])
def test_what_was_written_is_read(tmp_path: Path, style: str) -> None:
    write(tmp_path, style)
    dataset = open_dataset(config_for(tmp_path, style), "train")
    assert isinstance(dataset, Dataset)
    assert sorted(by_name(dataset)) == ["one", "three", "two"]
    assert dataset.classes == (("face",) if style == "wider" else NAMES)
    for item in ITEMS:
        index = by_name(dataset)[item.name]
        sample = dataset[index]
        assert (sample.width, sample.height) == dataset.size(index) == item.size
        assert sample.image.shape == (item.size[1], item.size[0], 3) and sample.image.dtype == np.uint8
        assert np.allclose(sample.truth.boxes, np.array(item.boxes).reshape(-1, 4), atol=1e-3)
        expected = [0] * len(item.boxes) if style == "wider" else list(item.labels)
        assert sample.truth.labels.tolist() == expected
        assert sample.truth.boxes.dtype == np.float32 and sample.truth.labels.dtype == np.int64
        assert not sample.truth.ignore.any()


@st.composite
def random_items(draw: st.DrawFn) -> tuple[Item, ...]:
    items = []
    for number in range(draw(st.integers(1, 3))):
        w, h = draw(st.integers(2, 40)), draw(st.integers(2, 40))
        boxes, labels = [], []
        for _ in range(draw(st.integers(0, 4))):
            x1, y1 = draw(st.integers(0, w - 1)), draw(st.integers(0, h - 1))
            boxes.append((x1, y1, draw(st.integers(x1 + 1, w)), draw(st.integers(y1 + 1, h))))
            labels.append(draw(st.integers(0, 2)))
        pairs = dict.fromkeys(zip(boxes, labels, strict=True))  # a YOLO line that stands twice is dropped
        items.append(Item(f"p{number}", (w, h), [box for box, _ in pairs], [label for _, label in pairs]))
    return tuple(items)


@QUICK
@given(items=random_items(), style=st.sampled_from(["voc", "coco", "yolo"]))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, items: tuple[Item, ...], style: str) -> None:
    if style == "yolo" and not any(item.boxes for item in items):
        return
    root = tmp_path_factory.mktemp("set")
    write(root, style, items)
    dataset = open_dataset(config_for(root, style), "train")
    assert len(dataset) == len(items) and not dataset.dropped and not dataset.clipped
    for item in items:
        truth = dataset.truth(by_name(dataset)[item.name])
        assert np.allclose(truth.boxes, np.array(item.boxes).reshape(-1, 4), atol=1e-3)
        assert truth.labels.tolist() == list(item.labels)


@QUICK
@given(
    boxes=st.lists(st.tuples(*[st.integers(-80, 120)] * 4), max_size=6),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
)
def test_boxes_are_always_inside_and_never_empty(
    tmp_path_factory: pytest.TempPathFactory, boxes: list, size: tuple[int, int]
) -> None:
    root = tmp_path_factory.mktemp("set")
    write_coco(root, (Item("a", size, boxes, [0] * len(boxes)),))
    dataset = open_dataset(config_for(root, "coco"), "train")
    truth = dataset.truth(0)
    assert (truth.boxes[:, :2] >= 0).all() and (truth.boxes[:, 2:] <= size).all()
    assert (truth.boxes[:, :2] < truth.boxes[:, 2:]).all()
    assert len(truth.boxes) + len(dataset.dropped) == len(boxes)


def test_bad_boxes_are_dropped_with_a_reason(tmp_path: Path) -> None:
    boxes = [(5, 5, 5, 9), (20, 5, 10, 9), (70, 5, 90, 9), (-4, 5, 10, 9)]
    write_coco(tmp_path, (Item("a", (60, 40), boxes, [0] * 4),))
    dataset = open_dataset(config_for(tmp_path, "coco"), "train")
    assert [item.reason for item in dataset.dropped] == [
        "width 0, height 4",
        "width -10, height 4",
        "outside of the 60 x 40 picture",
    ]
    assert dataset.dropped[1].box == (20, 5, 10, 9) and dataset.dropped[0].image_id == "a.jpg"
    assert [item.reason for item in dataset.clipped] == ["reaches 4 px out of the 60 x 40 picture"]
    assert dataset.truth(0).boxes.tolist() == [[0, 5, 10, 9]]


def test_keep_and_merge(tmp_path: Path) -> None:
    write_voc(tmp_path, ITEMS)
    kept = open_dataset(config_for(tmp_path, "voc", keep=("mouse", "dog")), "train")
    assert kept.classes == ("mouse", "dog")
    assert [kept.truth(index).labels.tolist() for index in range(3)] == [[0], [1], []]
    assert not kept.dropped
    merged = open_dataset(config_for(tmp_path, "voc", merge_to="animal"), "train")
    assert merged.classes == ("animal",)
    assert [merged.truth(index).labels.tolist() for index in range(3)] == [[0, 0], [0], []]


def test_voc_difficult(tmp_path: Path) -> None:
    write_voc(tmp_path, ITEMS, difficult=1)
    assert open_dataset(config_for(tmp_path, "voc"), "train").truth(0).ignore.all()
    assert not open_dataset(config_for(tmp_path, "voc", difficult="object"), "train").truth(0).ignore.any()


def test_coco_crowds_are_ignored(tmp_path: Path) -> None:
    path = write_coco(tmp_path, ITEMS)
    data = json.loads(path.read_text())
    data["annotations"][1]["iscrowd"] = 1
    path.write_text(json.dumps(data))
    assert open_dataset(config_for(tmp_path, "coco"), "train").truth(0).ignore.tolist() == [False, True]


def test_coco_names_come_from_the_file(tmp_path: Path) -> None:
    write_coco(tmp_path, ITEMS)
    assert open_dataset(config_for(tmp_path, "coco", names=None), "train").classes == NAMES


def test_two_coco_files_may_share_file_names(tmp_path: Path) -> None:
    write_coco(tmp_path, ITEMS)
    write_image(tmp_path / "other" / "one.jpg", 60, 40)
    data = json.loads((tmp_path / "train.json").read_text())
    data["images"], data["annotations"] = data["images"][:1], data["annotations"][:1]
    write_text(tmp_path / "more.json", json.dumps(data))
    config = config_for(tmp_path, "coco", train=["train.json:pictures", "more.json:other"])
    assert set(open_dataset(config, "train").image_ids) >= {"pictures/one.jpg", "other/one.jpg"}


def test_yolo_lists_polygons_and_repeated_lines(tmp_path: Path) -> None:
    write_yolo(tmp_path, ITEMS)
    write_text(tmp_path / "labels/train/one.txt", "1 0.1 0.2 0.5 0.25 0.3 0.75\n\n0 .5 .5 .1 .1\n0 .5 .5 .1 .1\n")
    write_text(tmp_path / "list.txt", "./images/train/one.png\nimages/train/two.png\n")
    dataset = open_dataset(config_for(tmp_path, "yolo", train="list.txt"), "train")
    assert len(dataset) == 2
    assert np.allclose(dataset.truth(0).boxes[0], [6, 8, 30, 30])
    assert dataset.truth(0).labels.tolist() == [1, 0]
    assert "twice" in dataset.dropped[0].reason


def test_wider_invalid_faces_are_ignored(tmp_path: Path) -> None:
    path = write_wider(tmp_path, ITEMS)
    lines = path.read_text().splitlines()
    lines[2] = "5 6 15 24 0 0 0 1 0 0"
    lines[3] = "5 6 0 24 0 0 0 0 0 0"
    path.write_text("\n".join(lines))
    dataset = open_dataset(config_for(tmp_path, "wider"), "train")
    assert dataset.truth(0).ignore.tolist() == [True]
    assert [item.reason for item in dataset.dropped] == ["width 0, height 24"]
    assert dataset.image_ids == ("0--Parade/one.jpg", "0--Parade/two.jpg", "0--Parade/three.jpg")


def test_shrunk_copies_keep_original_pixels(tmp_path: Path) -> None:
    write_yolo(tmp_path, ITEMS)
    write_text(tmp_path / "original_sizes.csv", "image,width,height\nimages/train/one.png,600,400\n")
    dataset = open_dataset(config_for(tmp_path, "yolo"), "train")
    index = by_name(dataset)["one"]
    assert dataset.size(index) == (600, 400)
    assert np.allclose(dataset.truth(index).boxes, np.array(ITEMS[0].boxes) * 10)
    image, truth = dataset.fetch(index)
    assert image.shape == (40, 60, 3) and np.allclose(truth.boxes, ITEMS[0].boxes, atol=1e-4)


def test_limit(tmp_path: Path) -> None:
    write_voc(tmp_path, ITEMS)
    assert len(open_dataset(config_for(tmp_path, "voc"), "train", limit=2)) == 2
    with pytest.raises(DataError, match="limit is 0"):
        open_dataset(config_for(tmp_path, "voc"), "train", limit=0)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


BAD = [
    ("voc", "V/ImageSets/Main/train.txt", "one\n", "one\none\n", "one is listed twice"),
    ("voc", "V/ImageSets/Main/train.txt", "two", "two 1", r"train\.txt:2: expected one picture a line"),
    ("voc", "V/ImageSets/Main/train.txt", "two", "nobody", r"nobody\.xml: annotation is missing"),
    ("voc", "V/ImageSets/Main/train.txt", "two", "../two", "is no name of a picture"),
    ("voc", "V/ImageSets/Main/train.txt", "one\ntwo\nthree\n", "", "the data set is empty"),
    ("voc", "V/Annotations/one.xml", "<name>cat", "<name>cta", r"one\.xml: unknown class 'cta' \(did you mean 'cat'\?\)"),
    ("voc", "V/Annotations/one.xml", "</object>", "", r"one\.xml:1: malformed XML"),
    ("voc", "V/Annotations/one.xml", "<xmin>6", "<xmin>six", r"bndbox/xmin of object 'cat' should be a number, is 'six'"),
    ("voc", "V/Annotations/one.xml", "<xmin>6", "<xmin>nan", "should be a number"),
    ("coco", "train.json", '"images"', '"imagse"', "has no list 'images'"),
    ("coco", "train.json", "{", "", "malformed JSON"),
    ("coco", "train.json", '"id": 1, "file_name"', '"id": 0, "file_name"', "image id 0 stands twice"),
    ("coco", "train.json", '"image_id": 0', '"image_id": 99', r"annotations\[0\] belongs to no picture"),
    ("coco", "train.json", '"category_id": 0', '"category_id": 3', "unknown category 3"),
    ("coco", "train.json", "[5, 6, 15, 24]", "[5, 6, 15]", r"bbox should be \[x, y, w, h\]"),
    ("coco", "train.json", "[5, 6, 15, 24]", "[5, 6, 15, Infinity]", r"bbox should be \[x, y, w, h\]"),
    ("coco", "train.json", '"name": "cat"', '"name": "lynx"', r"unknown class 'lynx'"),
    ("coco", "train.json", "one.jpg", "../one.jpg", "leads out of the image folder"),
    ("coco", "train.json", "one.jpg", "won.jpg", "1 of 3 pictures are missing, the first is .*won.jpg"),
    ("yolo", "labels/train/two.txt", "1 0.5", "1 zero", r"two\.txt:1: expected 'class cx cy w h'"),
    ("yolo", "labels/train/two.txt", "1 0.5", "9 0.5", r"two\.txt:1: unknown class 9: 'names'"),
    ("yolo", "labels/train/two.txt", "1 0.5", "1.5 0.5", r"two\.txt:1: unknown class 1\.5"),
    ("yolo", "labels/train/two.txt", "1 0.5 0.5 1.0 1.0", "1 16 23 33 47", r"must be shares of the picture"),
    ("wider", "wider_face_split/wider_face_train_bbx_gt.txt", "\n2\n", "\ntwo\n", r"gt\.txt:2: expected the number of"),
    ("wider", "wider_face_split/wider_face_train_bbx_gt.txt", "\n2\n", "\n3\n", r"gt\.txt:5: expected 'x y w h"),
    ("wider", "wider_face_split/wider_face_train_bbx_gt.txt", "\n2\n", "\n1\n", r"gt\.txt:4: expected the name of a"),
    ("wider", "wider_face_split/wider_face_train_bbx_gt.txt", "5 6 15 24", "5 6 15", r"gt\.txt:3: expected 'x y w h"),
    ("wider", "wider_face_split/wider_face_train_bbx_gt.txt", "two.jpg", "one.jpg", r"gt\.txt:5: .*one.jpg is listed"),
    ("wider", "wider_face_split/wider_face_train_bbx_gt.txt", "0--Parade/two", "../../two", "leads out of the image"),
]


@pytest.mark.parametrize(("style", "file", "old", "new", "message"), BAD)
def test_what_is_wrong_is_named(tmp_path: Path, style: str, file: str, old: str, new: str, message: str) -> None:
    write(tmp_path, style)
    edit(tmp_path / file, old, new)
    with pytest.raises(DataError, match=message):
        open_dataset(config_for(tmp_path, style), "train")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"path": "nowhere"}, "nowhere: no such folder: set 'path'"),
        ({"train": "V/trian"}, r"trian\.txt: image set is missing"),
        ({"keep": ["lynx"], "names": None}, "keep: lynx is no class"),
        ({"train": ()}, "has no split 'train'"),
    ],
)
def test_bad_configurations(tmp_path: Path, more: dict, message: str) -> None:
    write_voc(tmp_path, ITEMS)
    with pytest.raises(DataError, match=message):
        open_dataset(config_for(tmp_path, "voc", **more), "train")


def test_missing_and_broken_pictures_are_named(tmp_path: Path) -> None:
    write_voc(tmp_path, ITEMS)
    picture = tmp_path / "V/JPEGImages/one.jpg"
    dataset = open_dataset(config_for(tmp_path, "voc"), "train")
    picture.write_bytes(b"no picture at all")
    with pytest.raises(DataError, match=r"one\.jpg: broken picture: its 17 bytes are no known picture format"):
        dataset[0]
    picture.write_bytes(b"")
    with pytest.raises(DataError, match=r"one\.jpg: broken picture: the file is empty"):
        dataset[0]
    picture.unlink()
    with pytest.raises(DataError, match=r"one\.jpg: picture is missing"):
        dataset[0]
    with pytest.raises(DataError, match=r"1 of 3 pictures are missing, the first is .*one\.jpg"):
        open_dataset(config_for(tmp_path, "voc"), "train")


def test_yolo_without_any_labels_says_where_they_were_expected(tmp_path: Path) -> None:
    write_image(tmp_path / "images/train/a.png", 20, 20)
    with pytest.raises(DataError, match=r"none of 1 pictures has a label file; .*labels/train/a\.txt"):
        open_dataset(config_for(tmp_path, "yolo"), "train")
    (tmp_path / "images/empty").mkdir()
    with pytest.raises(DataError, match="the data set is empty"):
        open_dataset(config_for(tmp_path, "yolo", train="images/empty"), "train")


def test_fingerprint_follows_the_pictures(tmp_path: Path) -> None:
    write_voc(tmp_path, ITEMS)

    def fingerprint() -> str:
        return open_dataset(config_for(tmp_path, "voc"), "train").fingerprint()

    before = fingerprint()
    os.utime(tmp_path / "V/JPEGImages/one.jpg", (0, 0))  # as a copy does
    assert fingerprint() == before
    write_image(tmp_path / "V/JPEGImages/one.jpg", 61, 41, seed=9)
    assert fingerprint() != before
