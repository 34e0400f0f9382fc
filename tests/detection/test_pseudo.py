"""Pseudo boxes: a face counts inside of a person only, and what is written is a data set that can be trained on."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets import cli
from datasets.catalog import open_dataset
from datasets.config import load_data_config
from datasets.dataset import ImageDataset
from detection import pseudo

ROOT = Path(__file__).parents[2]
YUNET = ROOT / ".." / "shared" / "data" / "models" / "yunet_n_dynamic.onnx"


class Seer:
    """A teacher that finds the same faces everywhere, in pixels of the picture that it is shown."""

    def __init__(self, faces: list[tuple[float, float, float, float, float]]) -> None:
        self.found = np.array(faces, np.float32)

    def faces(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.found[:, :4], self.found[:, 4]


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Pictures of 100x80, stored at half of the size that the annotations speak of; a person in the left half of two of them."""
    (tmp_path / "images").mkdir()
    for n in range(6):
        cv2.imwrite(str(tmp_path / "images" / f"{n}.png"), np.full((80, 100, 3), n * 40, np.uint8))
    images = [{"id": n, "file_name": f"{n}.png", "width": 200, "height": 160} for n in range(6)]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [0, 0, 100, 160]} for n in (0, 3)]
    file = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "person"}]}
    (tmp_path / "people.json").write_text(json.dumps(file))
    (tmp_path / "people.yaml").write_text("{path: ., format: coco, train: 'people.json:images', names: [person]}")
    return tmp_path


def test_a_face_is_learnt_inside_of_a_person_when_the_teacher_is_sure(people: Path) -> None:
    dataset = open_dataset(load_data_config(people / "people.yaml"), "train")
    assert isinstance(dataset, ImageDataset)
    seer = Seer([(10, 10, 20, 24, 0.9), (70, 10, 80, 20, 0.9), (30, 30, 34, 34, 0.4)])
    found = pseudo.annotate(dataset, people, seer, 0.6, 0.0)  # type: ignore[arg-type]
    assert [image["file_name"] for image in found["images"]] == ["images/0.png", "images/3.png"]
    first = [(face["bbox"], face["iscrowd"]) for face in found["annotations"] if face["image_id"] == 1]
    assert first == [([20, 20, 20, 28], 0), ([140, 20, 20, 20], 1), ([60, 60, 8, 8], 1)]  # pixels of the original
    everything = pseudo.annotate(dataset, people, seer, 0.6, 1.0)  # type: ignore[arg-type]
    empty = {image["id"] for image in everything["images"]} - {face["image_id"] for face in everything["annotations"]}
    assert len(everything["images"]) == 6 and len(empty) == 4  # what is found without a person there is a mistake


def test_the_same_face_at_two_scales_is_one() -> None:
    boxes, scores = pseudo._distinct(np.array([(0, 0, 10, 10, 0.7), (0, 0, 11, 10, 0.8), (30, 0, 40, 10, 0.5)], np.float32))
    assert boxes[:, 2].tolist() == [11, 40] and scores.tolist() == pytest.approx([0.8, 0.5])


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["pseudo", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.run(pseudo.main)
    return ended.value.code  # type: ignore[return-value]


def test_no_teacher_is_one_line(people: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    out = people / "faces"
    arguments = ("--data", str(people / "people.yaml"), "--out", str(out))
    assert call(monkeypatch, str(people / "no.onnx"), *arguments) == 1
    assert "no such detector: give YuNet's .onnx file" in capfd.readouterr().err
    (people / "no.onnx").write_bytes(b"nothing")
    assert call(monkeypatch, str(people / "no.onnx"), *arguments) == 1
    assert "not a face detector that OpenCV can read" in capfd.readouterr().err and not out.exists()


@pytest.mark.skipif(not YUNET.is_file(), reason="needs ../shared/data/models/yunet_n_dynamic.onnx")
def test_what_is_written_is_a_data_set(people: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    faces = open_dataset(load_data_config(ROOT / "configs" / "data" / "facemask.yaml"), "val", 40)
    best = max(range(40), key=lambda n: np.diff(faces.truth(n).boxes[:, ::2]).max(initial=0))
    picture = faces[best].image[:, :, ::-1]
    cv2.imwrite(str(people / "images" / "0.png"), cv2.resize(picture, (320, 256)))
    out = people / "faces"
    assert call(monkeypatch, str(YUNET), "--data", str(people / "people.yaml"), "--out", str(out), "--empty", "1") == 0
    found = open_dataset(load_data_config(out / "data.yaml"), "train")
    assert found.classes == ("face",) and len(found) == 6 and "6 pictures" in capfd.readouterr().out
    assert len(found.truth(0).boxes) and found[0].image.shape == (256, 320, 3) and not len(found.truth(1).boxes)
