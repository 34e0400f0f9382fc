"""Small data sets written to a temporary folder, one writer per format."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np


class Item(NamedTuple):
    """What a writer needs of one picture; boxes xyxy in whole pixels."""

    name: str
    size: tuple[int, int]  # width, height
    boxes: Sequence[tuple[int, int, int, int]]
    labels: Sequence[int]


NAMES = ("cat", "dog", "mouse")
ITEMS = (
    Item("one", (60, 40), [(5, 6, 20, 30), (30, 10, 60, 40)], [0, 2]),
    Item("two", (33, 47), [(0, 0, 33, 47)], [1]),
    Item("three", (50, 50), [], []),
)


def write_image(path: Path, width: int, height: int, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    done, data = cv2.imencode(".png", image)
    assert done
    path.write_bytes(data.tobytes())


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def write_voc(root: Path, items: Sequence[Item], difficult: int = 0) -> None:
    for number, item in enumerate(items):
        write_image(root / "V" / "JPEGImages" / f"{item.name}.jpg", *item.size, seed=number)
        objects = "".join(
            f"<object><name>{NAMES[label]}</name><difficult>{difficult}</difficult><bndbox><xmin>{x1 + 1}</xmin>"
            f"<ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for (x1, y1, x2, y2), label in zip(item.boxes, item.labels, strict=True)
        )
        size = f"<size><width>{item.size[0]}</width><height>{item.size[1]}</height><depth>3</depth></size>"
        write_text(root / "V" / "Annotations" / f"{item.name}.xml", f"<annotation>{size}{objects}</annotation>")
    write_text(root / "V" / "ImageSets" / "Main" / "train.txt", "".join(f"{item.name}\n" for item in items))


def write_coco(root: Path, items: Sequence[Item], first_id: int = 0, gap: int = 7) -> Path:
    images, annotations = [], []
    for number, item in enumerate(items):
        write_image(root / "pictures" / f"{item.name}.jpg", *item.size, seed=number)
        images.append({"id": first_id + number, "file_name": f"{item.name}.jpg", "width": item.size[0], "height": item.size[1]})
        for (x1, y1, x2, y2), label in zip(item.boxes, item.labels, strict=True):
            annotations.append(
                {
                    "id": first_id + len(annotations),
                    "image_id": first_id + number,
                    "category_id": first_id + gap * label,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": first_id + gap * label, "name": name} for label, name in enumerate(NAMES)]
    data = {"images": images, "annotations": annotations, "categories": categories}
    return write_text(root / "train.json", json.dumps(data))


def write_yolo(root: Path, items: Sequence[Item]) -> None:
    for number, item in enumerate(items):
        write_image(root / "images" / "train" / f"{item.name}.png", *item.size, seed=number)
        w, h = item.size
        lines = [
            f"{label} {(x1 + x2) / 2 / w!r} {(y1 + y2) / 2 / h!r} {(x2 - x1) / w!r} {(y2 - y1) / h!r}\n"
            for (x1, y1, x2, y2), label in zip(item.boxes, item.labels, strict=True)
        ]
        if lines:
            write_text(root / "labels" / "train" / f"{item.name}.txt", "".join(lines))


def write_wider(root: Path, items: Sequence[Item]) -> Path:
    lines = []
    for number, item in enumerate(items):
        write_image(root / "WIDER_train" / "images" / "0--Parade" / f"{item.name}.jpg", *item.size, seed=number)
        lines += [f"0--Parade/{item.name}.jpg", str(len(item.boxes))]
        lines += [f"{x1} {y1} {x2 - x1} {y2 - y1} 0 0 0 0 0 0 " for x1, y1, x2, y2 in item.boxes]
        if not item.boxes:
            lines.append("0 0 0 0 0 0 0 0 0 0 ")
    return write_text(root / "wider_face_split" / "wider_face_train_bbx_gt.txt", "\n".join(lines) + "\n")
