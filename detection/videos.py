"""Videos through OpenCV: opened with a clear word about what is wrong, read frame by frame, written whole or not at all."""

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ogv")
USUAL_RATE = 25.0  # frames a second, where a file does not say
COMPLETE = 0.95  # share of the frames that a file promises; containers count a few too many

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # we say ourselves what is wrong with a file


class VideoError(ValueError):
    """A video that cannot be read or written."""


def is_video(path: Path) -> bool:
    """By the name's ending."""
    return path.suffix.lower() in SUFFIXES


class VideoReader:
    """Frames of a file, uint8 (h, w, 3) RGB, upright. Raises VideoError when it is no video."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise VideoError(f"{path}: no such video")
        self._capture = cv2.VideoCapture(str(path))
        self.promised = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))  # 0 where the file does not say
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.rate = rate if 0 < rate <= 1000 else USUAL_RATE
        self._first = self._read() if self._capture.isOpened() else None
        if self._first is None:
            self.close()
            raise VideoError(f"{path}: not a video that can be read: cut off, damaged, or of a kind that OpenCV does not know")
        self.height, self.width = self._first.shape[:2]

    def frames(self) -> Iterator[np.ndarray]:
        """Every frame, once. Raises VideoError where the file ends long before it should."""
        count = 0
        while (frame := self.next()) is not None:
            yield frame
            count += 1
        if count < COMPLETE * self.promised:
            raise VideoError(f"{self.path}: damaged, {count} of {self.promised} frames can be read")

    def next(self, skip: int = 0) -> np.ndarray | None:
        """The next frame after `skip` others, None at the end."""
        for _ in range(skip):
            if self._first is None and not self._capture.grab():
                return None
            self._first = None
        frame, self._first = self._first, None
        return self._read() if frame is None else frame

    def close(self) -> None:
        self._capture.release()

    def _read(self) -> np.ndarray | None:
        there, frame = self._capture.read()
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if there else None


class VideoWriter:
    """Writes an MP4 of uint8 (h, w, 3) RGB frames as a context; the file appears when the block ends without an error."""

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate = path, rate
        self._part = path.with_name(f"{path.stem}.part{os.getpid()}{path.suffix}")
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> "VideoWriter":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, frame: np.ndarray) -> None:
        if self._writer is None:
            size = frame.shape[1], frame.shape[0]
            self._writer = cv2.VideoWriter(str(self._part), cv2.VideoWriter_fourcc(*"mp4v"), self.rate, size)
            if not self._writer.isOpened():
                raise VideoError(f"{self.path}: OpenCV cannot write this video")
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def __exit__(self, kind: type | None, *_: object) -> None:
        if self._writer is not None:
            self._writer.release()
        if kind is None and self._part.exists():
            os.replace(self._part, self.path)
        self._part.unlink(missing_ok=True)
