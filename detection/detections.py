"""What every predictor returns for one picture, be it torch, the interpreter, the C runtime or a board. No torch."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Detections:
    """Boxes found in one picture, best first. Ties are in the order of (score desc, class, cell index)."""

    boxes: np.ndarray  # (n, 4) float32 xyxy, pixels of the original picture
    scores: np.ndarray  # (n,) float32 in [0, 1], descending
    labels: np.ndarray  # (n,) int64
