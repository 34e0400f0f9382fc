"""The two values that every reader makes: a picture and what is true of it.

No reader, no transform and no torch here; see catalog.py for the way from a data set on disk to `Sequence[Sample]`.
"""

from typing import NamedTuple

import numpy as np


class GroundTruth(NamedTuple):
    """What is true of one picture. Boxes are `xyxy`, absolute pixels of the original picture, half-open."""

    boxes: np.ndarray  # (n, 4) float32, x1 < x2, y1 < y2
    labels: np.ndarray  # (n,) int64, index into the class list
    ignore: np.ndarray  # (n,) bool: difficult, crowd or invalid; neither hit nor miss

    @staticmethod
    def empty() -> "GroundTruth":
        return GroundTruth(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool))


class Sample(NamedTuple):
    """One picture with its truth. `image` may be a shrunk copy; `truth` is in pixels of the original (width x height)."""

    image: np.ndarray  # uint8 (H, W, 3) RGB
    truth: GroundTruth
    image_id: str  # unique in its data set; the path below the image folder where there is one
    width: int  # of the original picture, pixels
    height: int


class DroppedBox(NamedTuple):
    """A box that a reader left out, and why; `datasets.check` prints them."""

    image_id: str
    box: tuple[float, float, float, float]  # xyxy as read
    reason: str
