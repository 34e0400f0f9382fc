"""Knowledge distillation: what a published face detector says of every cell of the very crop that ours is shown.

The teacher is YuNet (libfacedetection.train, Apache-2.0) as ONNX with inputs of any size. It has our grids: strides 8, 16
and 32, cell centres at (i + .5) * stride. OpenCV runs it, in the loader process, so that the training process never waits
for more than its own steps.
"""

from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

STRIDES = (8, 16, 32)
_OUTPUTS = tuple(f"{kind}_{stride}" for kind in ("cls", "obj", "bbox") for stride in STRIDES)


class TeacherError(ValueError):
    """The teacher cannot teach. The message names its file, or the setting to change."""


class YunetTeacher:
    """Scores and boxes of all cells, levels by ascending stride and row-major within one: the order of decode.Cells."""

    def __init__(self, path: Path, height: int, width: int) -> None:
        """Raises TeacherError: no such file, no YuNet, or crops that are no multiple of 32 pixels."""
        if height % STRIDES[-1] or width % STRIDES[-1]:
            raise TeacherError(f"{path.name} wants crops of a multiple of {STRIDES[-1]} px, not {height}x{width}: set train.crop")
        if not path.is_file():
            raise TeacherError(f"{path}: no such teacher: train.teacher must be YuNet's .onnx file")
        self.path, self.height, self.width = path, height, width
        missing = set(_OUTPUTS) - set(self._net.getUnconnectedOutLayersNames())
        if missing:
            raise TeacherError(f"{path}: no YuNet: it has no output '{sorted(missing)[0]}'")

    def __getstate__(self) -> dict[str, object]:
        """To a loader process travels the file's name; it opens a network of its own."""
        return {name: value for name, value in vars(self).items() if name != "_net"}

    @cached_property
    def _net(self) -> cv2.dnn.Net:
        try:
            return cv2.dnn.readNetFromONNX(str(self.path))
        except cv2.error:
            raise TeacherError(f"{self.path}: not a network that OpenCV can read") from None

    def answers(self, image: np.ndarray) -> np.ndarray:
        """uint8 (height, width, 3) RGB -> float32 (cells, 5): a box, xyxy in its pixels, and a score in [0, 1].

        As in OpenCV's FaceDetectorYN the score is sqrt(class * objectness), and a box (dx, dy, log w, log h) in strides.
        """
        self._net.setInput(cv2.dnn.blobFromImage(image, swapRB=True))  # BGR, 0 .. 255
        names = self._net.getUnconnectedOutLayersNames()  # OpenCV insists on all of them
        maps = dict(zip(names, self._net.forward(names), strict=True))
        return np.concatenate([self._level(maps, stride) for stride in STRIDES])

    def _level(self, maps: dict[str, np.ndarray], stride: int) -> np.ndarray:
        rows, columns = np.mgrid[: self.height // stride, : self.width // stride].reshape(2, -1)
        dx, dy, log_width, log_height = maps[f"bbox_{stride}"].reshape(-1, 4).T
        x, y = (columns + dx) * stride, (rows + dy) * stride
        half_width, half_height = np.exp(log_width) * (stride / 2), np.exp(log_height) * (stride / 2)
        chances = [maps[f"{kind}_{stride}"].reshape(-1).clip(0, 1) for kind in ("cls", "obj")]
        corners = (x - half_width, y - half_height, x + half_width, y + half_height)
        return np.stack([*corners, np.sqrt(chances[0] * chances[1])], 1).astype(np.float32)
