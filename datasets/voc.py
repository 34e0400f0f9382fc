"""PASCAL VOC: `VOC2012/ImageSets/Main/train.txt`, `Annotations/*.xml`, `JPEGImages/*.jpg`."""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datasets.config import DataError
from datasets.dataset import RawImage
from datasets.images import SUFFIXES

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def read_voc(root: Path, entry: str, difficult: str = "ignore") -> Iterator[RawImage]:
    """Pictures of an image set such as "VOC2012/train"; `difficult` objects are marked ignore, or count as any object.

    The XML's corners are 1-based and inclusive; here they become half-open: (xmin - 1, ymin - 1, xmax, ymax). Widths
    are then what the VOC devkit counts (its "+ 1").

    Raises:
        DataError: missing or malformed file.
    """
    folder_name, _, image_set = entry.rpartition("/")
    folder = root / folder_name
    list_path = folder / "ImageSets" / "Main" / f"{image_set}.txt"
    try:
        lines = list_path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(f"{list_path}: image set is missing: write the split as FOLDER/SET, e.g. VOC2012/train") from None
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 1:
            raise DataError(f"{list_path}:{number}: expected one picture a line, found '{line.strip()[:60]}'")
        yield _read_one(folder, folder_name, words[0], f"{list_path}:{number}", difficult == "ignore")


def _read_one(folder: Path, folder_name: str, stem: str, source: str, mark: bool) -> RawImage:
    if "/" in stem or "\\" in stem or stem.startswith("."):
        raise DataError(f"{source}: '{stem}' is no name of a picture")
    path = folder / "Annotations" / f"{stem}.xml"
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: annotation is missing; it is listed in {source}") from None
    except ElementTree.ParseError as error:
        raise DataError(f"{path}:{error.position[0]}: malformed XML: {error}") from None
    rows: list[tuple[float, ...]] = []
    names: list[str] = []
    ignore: list[bool] = []
    for element in root.findall("object"):
        name = (element.findtext("name") or "").strip()
        if not name:
            raise DataError(f"{path}: an object has no name")
        corners = [_number(path, element, f"bndbox/{tag}") for tag in ("xmin", "ymin", "xmax", "ymax")]
        rows.append((corners[0] - 1, corners[1] - 1, corners[2], corners[3]))
        names.append(name)
        ignore.append(mark and (element.findtext("difficult") or "0").strip() not in ("0", ""))
    boxes = np.array(rows, np.float64).reshape(-1, 4)
    image_id = f"{folder_name}/{stem}" if folder_name else stem
    return RawImage(image_id, _image(folder, stem), boxes, names, np.array(ignore, bool), str(path), _size(root))


def _number(path: Path, element: ElementTree.Element, tag: str) -> float:
    text = element.findtext(tag)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        name = element.findtext("name")
        raise DataError(f"{path}: {tag} of object '{name}' should be a number, is {text!r}")
    return value


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    """Some tools write 0 x 0 or nothing; the picture's header answers then."""
    try:
        width, height = int(root.findtext("size/width") or 0), int(root.findtext("size/height") or 0)
    except ValueError:
        return None
    return (width, height) if width > 0 and height > 0 else None


def _image(folder: Path, stem: str) -> Path:
    usual = folder / "JPEGImages" / f"{stem}.jpg"
    if not usual.is_file():
        for suffix in SUFFIXES[1:]:
            other = usual.with_suffix(suffix)
            if other.is_file():
                return other
    return usual
