"""Pictures and videos that a user points at: found; pictures read, shrunk when huge, and written back with boxes."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from datasets.annotations import GroundTruth, Sample
from datasets.images import SUFFIXES, decode_image
from detection import videos

MAX_SIDE = 2048  # pixels; phones take larger ones than a camera's memory or the emulator's line buffer holds


class PictureError(ValueError):
    """A path without pictures and videos."""


def find_pictures(paths: Sequence[str | Path]) -> list[Path]:
    """Files as given, folders as the pictures and videos in them, sorted. Raises PictureError where there is nothing."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            wanted = (*SUFFIXES, *videos.SUFFIXES)
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in wanted and p.is_file())
            if not inside:
                raise PictureError(f"{path}: no pictures in this folder (looked for {', '.join(wanted)})")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise PictureError(f"{path}: no such picture, video or folder")
    return found


def load_picture(path: Path) -> Sample:
    """One picture, upright as its EXIF says, without truth; shrunk to MAX_SIDE, but speaking of the original's pixels.

    Raises datasets.config.DataError when it is broken.
    """
    image = decode_image(path, exif=True)
    height, width = image.shape[:2]
    if max(height, width) > MAX_SIDE:
        factor = MAX_SIDE / max(height, width)
        size = max(1, round(width * factor)), max(1, round(height * factor))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return Sample(image, GroundTruth.empty(), str(path), width, height)


def save_picture(path: Path, image: np.ndarray) -> None:
    """Write uint8 (h, w, 3) RGB by the ending of `path`, whole or not at all. Raises PictureError when it cannot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = [cv2.IMWRITE_JPEG_QUALITY, 92] if path.suffix.lower() in (".jpg", ".jpeg") else []
    done, content = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)
    if not done:
        raise PictureError(f"{path}: cannot be written as {path.suffix}")
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        temporary.write_bytes(content.tobytes())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def output_names(pictures: Sequence[Path], folder: Path) -> Iterator[Path]:
    """Where each goes: its name with .jpg or .mp4, numbered where two have the same, never onto one of them."""
    taken = {picture.resolve() for picture in pictures}
    for picture in pictures:
        suffix = ".mp4" if videos.is_video(picture) else ".jpg"
        target, number = folder / f"{picture.stem}{suffix}", 2
        while target.resolve() in taken:
            target, number = folder / f"{picture.stem}-{number}{suffix}", number + 1
        taken.add(target.resolve())
        yield target
