"""COCO JSON. Read without pycocotools: ids may start at 0 and categories may have gaps."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.config import DataError
from datasets.dataset import RawImage


@dataclass(frozen=True)
class CocoFile:
    """One parsed annotation file and the folder of its pictures."""

    path: Path
    images: Path
    folder_name: str  # of the pictures, as written in the configuration
    data: dict[str, Any]
    names: dict[int, str]  # category id -> name


def open_coco(root: Path, entry: str) -> CocoFile:
    """Parse "annotations/x.json:images".

    Raises:
        DataError: missing or malformed file.
    """
    file_name, colon, folder_name = entry.rpartition(":")
    if not colon:
        raise DataError(f"'{entry}': write a COCO split as ANNOTATIONS.json:IMAGE_FOLDER")
    path = root / file_name
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: annotation file is missing") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: malformed JSON: {error}") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise DataError(f"{path}: has no list '{key}'; is it a COCO detection file?")
    names: dict[int, str] = {}
    for number, category in enumerate(data["categories"]):
        try:
            identifier, name = category["id"], str(category["name"])
        except (KeyError, TypeError):
            raise DataError(f"{path}: categories[{number}] has no id and name") from None
        if identifier in names or name in names.values():
            raise DataError(f"{path}: category {identifier} '{name}' stands twice")
        names[identifier] = name
    return CocoFile(path, root / folder_name, folder_name, data, names)


def categories(files: Sequence[CocoFile]) -> tuple[str, ...]:
    """Class names by ascending id; further files add the names that only they have."""
    names: dict[str, None] = {}
    for file in files:
        names.update(dict.fromkeys(file.names[key] for key in sorted(file.names)))
    return tuple(names)


def read_coco(file: CocoFile, prefix: bool = False) -> Iterator[RawImage]:
    """Pictures in the order of the file; crowds are marked ignore. `prefix` puts the folder before image ids.

    Raises:
        DataError: malformed entry, or an annotation of an unknown picture or category.
    """
    path = file.path
    grouped: dict[Any, list[dict[str, Any]]] = {}
    for number, image in enumerate(file.data["images"]):
        if not isinstance(image, dict) or "id" not in image or not isinstance(image.get("file_name"), str):
            raise DataError(f"{path}: images[{number}] has no id and file_name")
        if image["id"] in grouped:
            raise DataError(f"{path}: image id {image['id']} stands twice")
        grouped[image["id"]] = []
    for number, annotation in enumerate(file.data["annotations"]):
        if not isinstance(annotation, dict) or annotation.get("image_id") not in grouped:
            raise DataError(f"{path}: annotations[{number}] belongs to no picture of the file")
        if annotation.get("category_id") not in file.names:
            raise DataError(f"{path}: annotations[{number}] has the unknown category {annotation.get('category_id')}")
        grouped[annotation["image_id"]].append(annotation)
    for image in file.data["images"]:
        annotations = grouped[image["id"]]
        boxes = np.array([_box(path, item) for item in annotations], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        names = [file.names[item["category_id"]] for item in annotations]
        ignore = np.array([bool(item.get("iscrowd", 0) or item.get("ignore", 0)) for item in annotations], bool)
        name = image["file_name"]
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DataError(f"{path}: file_name '{name}' leads out of the image folder")
        image_id = f"{file.folder_name}/{name}" if prefix else name
        yield RawImage(image_id, file.images / name, boxes, names, ignore, str(path), _size(image))


def _box(path: Path, annotation: dict[str, Any]) -> list[float]:
    box = annotation.get("bbox")
    try:
        values = [float(value) for value in box]  # type: ignore[union-attr]
        if len(values) != 4 or not all(math.isfinite(value) for value in values):
            raise ValueError
    except (TypeError, ValueError):
        raise DataError(f"{path}: annotation {annotation.get('id')}: bbox should be [x, y, w, h], is {box}") from None
    return values


def _size(image: dict[str, Any]) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        return width, height
    return None
