"""YOLO text labels: one file a picture, lines `class cx cy w h` in shares of the picture (or a polygon after the class)."""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from datasets.annotations import DroppedBox
from datasets.config import DataError
from datasets.dataset import RawImage
from datasets.images import SUFFIXES

_PIXELS = 2.0  # a share beyond this is no sloppy edge: the file holds pixels


def read_yolo(root: Path, entries: Sequence[str], names: Sequence[str]) -> Iterator[RawImage]:
    """Pictures of image folders (sorted) or of lists of pictures; labels lie where `/images/` is `/labels/`.

    A picture without a label file is background. EXIF rotation counts, as labelling tools show it.

    Raises:
        DataError: nothing there, no label file at all, malformed line (with file:line).
    """
    paths = [path for entry in entries for path in _pictures(root, entry)]
    labels = [label_path(path) for path in paths]
    if paths and not any(label.is_file() for label in labels):
        raise DataError(f"{root}: none of {len(paths)} pictures has a label file; the first was expected at {labels[0]}")
    for path, label in zip(paths, labels, strict=True):
        yield _read_one(root, path, label, names)


def label_path(image: Path) -> Path:
    """`a/images/train/x.jpg` -> `a/labels/train/x.txt`; the last folder named images counts."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _pictures(root: Path, entry: str) -> list[Path]:
    place = root / entry
    if place.is_dir():
        found = sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES)
        if not found:
            raise DataError(f"{place}: the data set is empty: no pictures ({', '.join(SUFFIXES)}) in the folder")
        return found
    if place.suffix != ".txt" or not place.is_file():
        raise DataError(f"{place}: no such image folder or list of pictures")
    paths = []
    for line in place.read_text(encoding="utf-8").splitlines():
        if line.strip():  # "./x" counts from the list's folder, as Ultralytics has it; else from the data set's
            paths.append((place.parent if line.startswith("./") else root) / line.strip())
    return paths


def _read_one(root: Path, path: Path, label: Path, names: Sequence[str]) -> RawImage:
    rows: list[tuple[float, ...]] = []
    classes: list[str] = []
    notes: list[DroppedBox] = []
    image_id = Path(os.path.relpath(path, root)).as_posix()
    lines = label.read_text(encoding="utf-8").splitlines() if label.is_file() else []
    seen: set[tuple[str, ...]] = set()
    for number, line in enumerate(lines, start=1):
        words = tuple(line.split())
        if not words:
            continue
        name, box = _parse(words, names, f"{label}:{number}")
        if words in seen:
            notes.append(DroppedBox(image_id, box, f"the same line twice in {label.name}:{number} (shares)"))
            continue
        seen.add(words)
        rows.append(box)
        classes.append(name)
    boxes = np.array(rows, np.float64).reshape(-1, 4)
    ignore = np.zeros(len(rows), bool)
    return RawImage(image_id, path, boxes, classes, ignore, str(label), None, relative=True, notes=tuple(notes))


def _parse(words: tuple[str, ...], names: Sequence[str], where: str) -> tuple[str, tuple[float, float, float, float]]:
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    polygon = len(numbers) >= 7 and len(numbers) % 2 == 1
    if not (len(numbers) == 5 or polygon) or not all(map(math.isfinite, numbers)):
        raise DataError(f"{where}: expected 'class cx cy w h', found '{' '.join(words)[:60]}'")
    number = int(numbers[0])
    if number != numbers[0] or not 0 <= number < len(names):
        raise DataError(
            f"{where}: unknown class {words[0]}: 'names' in the data YAML has {len(names)} classes, "
            f"numbered 0 .. {len(names) - 1}; add it there or correct the line"
        )
    if max(map(abs, numbers[1:])) > _PIXELS:
        raise DataError(f"{where}: coordinates must be shares of the picture (0 .. 1), found '{' '.join(words)[:60]}'")
    if polygon:
        xs, ys = numbers[1::2], numbers[2::2]
        return names[number], (min(xs), min(ys), max(xs), max(ys))
    _, cx, cy, w, h = numbers
    return names[number], (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
