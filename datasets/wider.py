"""WIDER FACE: `wider_face_split/wider_face_{train,val}_bbx_gt.txt` beside `WIDER_{train,val}/images`."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datasets.config import DataError
from datasets.dataset import RawImage

CLASSES = ("face",)
_FIELDS = "x y w h blur expression illumination invalid occlusion pose"
_INVALID = 7


def read_wider(root: Path, entry: str) -> Iterator[RawImage]:
    """Pictures of a split ("train" or "val") in the order of the file; `invalid` faces are marked ignore.

    Boxes are x, y, x + w, y + h. A picture without faces is followed by one line of zeros.

    Raises:
        DataError: unknown split, missing file, malformed line (with file:line).
    """
    if entry not in ("train", "val"):
        raise DataError(f"WIDER FACE has annotations for 'train' and 'val', not for '{entry}'")
    path = root / "wider_face_split" / f"wider_face_{entry}_bbx_gt.txt"
    images = root / f"WIDER_{entry}" / "images"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(f"{path}: annotation file is missing: 'path' must be the folder that holds it") from None
    end = len(lines)
    while end and not lines[end - 1].strip():
        end -= 1
    position = 0
    while position < end:
        start, name = position, lines[position].strip()
        if not name.lower().endswith((".jpg", ".jpeg", ".png", ".webp")):
            raise DataError(f"{path}:{position + 1}: expected the name of a picture, found '{name[:60]}'")
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise DataError(f"{path}:{position + 1}: '{name[:60]}' leads out of the image folder")
        count = _count(path, lines, position + 1, end)
        first, position = position + 2, position + 2 + max(count, 1)
        if count == 0 and (first >= end or lines[first].split() != ["0"] * 10):
            position = first  # some re-published lists leave the dummy line out
        rows = [_face(path, lines, number, end) for number in range(first, first + count)]
        faces = np.array(rows, np.float64).reshape(-1, 10)
        boxes = np.concatenate([faces[:, :2], faces[:, :2] + faces[:, 2:4]], axis=1)
        yield RawImage(name, images / name, boxes, CLASSES * count, faces[:, _INVALID] != 0, f"{path}:{start + 1}")


def _count(path: Path, lines: list[str], number: int, end: int) -> int:
    text = lines[number].strip() if number < end else ""
    if not text.isdecimal():
        raise DataError(f"{path}:{number + 1}: expected the number of faces, found '{text[:60]}'")
    return int(text)


def _face(path: Path, lines: list[str], number: int, end: int) -> list[float]:
    text = lines[number] if number < end else ""
    try:
        values = [float(value) for value in text.split()]
        if len(values) != 10 or not np.isfinite(values).all():
            raise ValueError
    except ValueError:
        raise DataError(f"{path}:{number + 1}: expected '{_FIELDS}', found '{text.strip()[:60]}'") from None
    return values
