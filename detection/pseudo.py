"""Face boxes for pictures that have none, by a published detector.

    python -m detection.pseudo yunet_n_dynamic.onnx --data configs/data/person.yaml --out runs/voc_faces

The data set tells where people are (`keep: [person]`), the teacher (YuNet, Apache-2.0) where in them faces are: a face inside
of a person is one to learn from when the teacher is sure, one to ignore when it is not; in a picture without people it is the
teacher's mistake, and the picture teaches what is no face. The folder gets faces.json (COCO) and data.yaml, for `train.extra`.
"""

import argparse
import json
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from rich.console import Console
from rich.progress import track

from datasets import cli
from datasets.catalog import open_dataset
from datasets.config import DataError, load_data_config
from datasets.dataset import ImageDataset
from detection.decode import nms

SIDES = (320, 640)  # pixels: long sides at which the teacher looks, for large and for small faces


def open_yunet(path: Path, score: float, iou: float = 0.45, candidates: int = 5000) -> cv2.FaceDetectorYN:
    """YuNet as OpenCV runs it. Raises DataError: no such file, or none that OpenCV takes for YuNet."""
    if not path.is_file():
        raise DataError(f"{path}: no such detector: give YuNet's .onnx file")
    try:
        return cv2.FaceDetectorYN.create(str(path), "", (320, 320), score, iou, candidates)
    except cv2.error:
        raise DataError(f"{path}: not a face detector that OpenCV can read") from None


def find_faces(net: cv2.FaceDetectorYN, image: np.ndarray) -> np.ndarray:
    """uint8 (h, w, 3) RGB, shown as it is -> float32 (n, 5): corners xyxy in its pixels, score."""
    net.setInputSize((image.shape[1], image.shape[0]))
    faces = net.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    if faces is None:
        return np.zeros((0, 5), np.float32)
    return np.concatenate([faces[:, :2], faces[:, :2] + faces[:, 2:4], faces[:, -1:]], axis=1)


class Teacher:
    """YuNet at several scales."""

    def __init__(self, path: Path, threshold: float) -> None:
        """Raises DataError as `open_yunet` does."""
        self._net = open_yunet(path, threshold)

    def faces(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (h, w, 3) RGB -> boxes (n, 4) xyxy in its pixels, scores (n,), the best first."""
        found = []
        for side in SIDES:
            scale = side / max(image.shape[:2])
            resized = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
            faces = find_faces(self._net, resized)
            faces[:, :4] /= scale
            found.append(faces)
        return _distinct(np.concatenate(found))


def _distinct(found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, 5) boxes and scores of all scales -> boxes, scores of different faces, the best first."""
    found = found[np.argsort(-found[:, 4], kind="stable")]
    kept = nms(torch.from_numpy(found[:, :4]), torch.zeros(len(found)), 0.4).numpy()
    return found[kept, :4], found[kept, 4]


def inside_of_any(faces: np.ndarray, people: np.ndarray) -> np.ndarray:
    """(n,) bool: the centre of the face lies in a person's box. faces: (n, 4), people: (m, 4), xyxy."""
    x, y = (faces[:, 0] + faces[:, 2]) / 2, (faces[:, 1] + faces[:, 3]) / 2
    x1, y1, x2, y2 = (people[:, side, None] for side in range(4))
    return ((x1 <= x) & (x <= x2) & (y1 <= y) & (y <= y2)).any(0)


def annotate(dataset: ImageDataset, root: Path, teacher: Teacher, sure: float, empty: float) -> dict[str, Any]:
    """A COCO file's content: pictures with people, and the share `empty` of those without, chosen by their names."""
    images: list[dict[str, Any]] = []
    faces: list[dict[str, Any]] = []
    for index in track(range(len(dataset)), "looking for faces", console=Console(stderr=True)):
        record = dataset.records[index]
        people = record.truth.boxes
        if not len(people) and zlib.crc32(record.image_id.encode()) >= empty * 2**32:
            continue
        name = record.path.relative_to(root).as_posix()
        images.append({"id": len(images) + 1, "file_name": name, "width": record.width, "height": record.height})
        if not len(people):
            continue
        sample = dataset[index]
        boxes, scores = teacher.faces(sample.image)
        boxes = boxes * (np.array([record.width, record.height] * 2) / (sample.image.shape[1::-1] * 2))
        certain = inside_of_any(boxes, people) & (scores >= sure)
        for (x1, y1, x2, y2), score, learn in zip(boxes.tolist(), scores.tolist(), certain.tolist(), strict=True):
            box = {"bbox": [round(v, 1) for v in (x1, y1, x2 - x1, y2 - y1)], "score": round(score, 3), "iscrowd": int(not learn)}
            faces.append({"id": len(faces) + 1, "image_id": len(images), "category_id": 1, **box})
    return {"images": images, "annotations": faces, "categories": [{"id": 1, "name": "face"}]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path, help="YuNet's .onnx file")
    parser.add_argument("--data", required=True, help="data YAML whose boxes are people, e.g. configs/data/person.yaml")
    parser.add_argument("--split", default="train", choices=("train", "val", "test"))
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--sure", type=float, default=0.7, help="score from which a face is learnt (default: %(default)s)")
    parser.add_argument("--unsure", type=float, default=0.3, help="score from which one is ignored (default: %(default)s)")
    parser.add_argument("--empty", type=float, default=0.25, help="share of the pictures without people (default: %(default)s)")
    options = parser.parse_args()
    config = load_data_config(options.data)
    dataset = open_dataset(config, options.split)
    if not isinstance(dataset, ImageDataset):
        raise DataError(f"{options.data}: pictures on disk are needed, not {config.format}")
    found = annotate(dataset, config.path, Teacher(options.teacher, options.unsure), options.sure, options.empty)
    options.out.mkdir(parents=True, exist_ok=True)
    file = (options.out / "faces.json").resolve()
    file.write_text(json.dumps(found))
    data = {"path": str(config.path), "format": "coco", "train": f"{file}:.", "names": ["face"]}
    (options.out / "data.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    sure = sum(not face["iscrowd"] for face in found["annotations"])
    unsure = len(found["annotations"]) - sure
    print(f"{len(found['images'])} pictures, {sure} faces, {unsure} to ignore: {options.out / 'data.yaml'}")


if __name__ == "__main__":
    cli.run(main)
