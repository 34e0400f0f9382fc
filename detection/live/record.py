"""What the live demo leaves on the disk: snapshots with boxes, and recordings (JSON lines and the pictures as they came)."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from detection.detections import Detections
from detection.draw import draw_detections
from detection.live.engine import Settings, Shot, encode_jpeg


class Recorder:
    """A folder that takes every shot: `recording.jsonl` (first line: what was run) and `pictures/NUMBER.jpg`."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder = _new(folder)
        self.count = 0
        (self.folder / "pictures").mkdir()
        self._lines: TextIO = (self.folder / "recording.jsonl").open("w", encoding="utf-8")
        self._write({**about, "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")})

    def take(self, shot: Shot, settings: Settings) -> None:
        """Raises OSError when the disk does not take it; what was written before stays whole."""
        name = f"pictures/{self.count + 1:06d}.jpg"
        (self.folder / name).write_bytes(encode_jpeg(shot.frame.image, 92))
        self._write({"picture": name, **describe(shot, settings)})
        self.count += 1

    def close(self) -> None:
        self._lines.close()

    def _write(self, entry: Mapping[str, Any]) -> None:
        self._lines.write(json.dumps(entry) + "\n")
        self._lines.flush()


def describe(shot: Shot, settings: Settings) -> dict[str, Any]:
    """One shot as a line: boxes that count, in pixels of the picture, and what it cost."""
    height, width = shot.frame.image.shape[:2]
    shown = np.flatnonzero(shot.shown(settings))
    return {
        "frame": shot.number,
        "name": shot.frame.name,
        "width": width,
        "height": height,
        "boxes": [
            {
                "xyxy": [round(float(value), 2) for value in shot.found.boxes[k]],
                "score": round(float(shot.found.scores[k]), 5),
                "label": int(shot.found.labels[k]),
                "id": int(shot.ids[k]),
            }
            for k in shown
        ],
        "crossed": {"right": shot.crossed[0], "left": shot.crossed[1]} if settings.line else None,
        "cost": shot.record.instructions,
        "host_ms": round(1000 * shot.seconds, 3),
    }


def snapshot(shot: Shot, settings: Settings, classes: tuple[str, ...]) -> bytes:
    """A JPEG with the boxes that count drawn into it."""
    shown = shot.shown(settings)
    found = Detections(shot.found.boxes[shown], shot.found.scores[shown], shot.found.labels[shown])
    return encode_jpeg(draw_detections(shot.frame.image, found, classes), 92)


def save_snapshot(folder: Path, content: bytes) -> Path:
    """Write it under a name of its own; the path."""
    folder.mkdir(parents=True, exist_ok=True)
    stem, number = f"snapshot-{time.strftime('%Y%m%d-%H%M%S')}", 1
    while True:
        path = folder / (f"{stem}.jpg" if number == 1 else f"{stem}-{number}.jpg")
        try:
            with path.open("xb") as file:
                file.write(content)
            return path
        except FileExistsError:
            number += 1


def _new(folder: Path) -> Path:
    """Make a folder recording-TIME inside of `folder`."""
    stem, number = f"recording-{time.strftime('%Y%m%d-%H%M%S')}", 1
    while True:
        path = folder / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            number += 1
