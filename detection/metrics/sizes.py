"""VOC AP50 by the size at which the network sees an object: side = sqrt(width * height) in pixels of the network's input.

COCO's small, medium and large speak of the original picture; a tiny network looks at a shrunk one, and what it can find
is settled there. The rule for what lies outside of a range is COCO's: an object of another size is ignored, like a
difficult one, and so is a detection of another size that lies on no object.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from datasets.annotations import GroundTruth
from datasets.dataset import Dataset
from detection.detections import Detections
from detection.metrics.common import Metrics, MetricsError, overlap
from detection.metrics.voc import VocEvaluator

RANGES = {"tiny": (0.0, 16.0), "small": (16.0, 32.0), "medium": (32.0, 96.0), "large": (96.0, math.inf)}  # input pixels
SIZES = {
    f"input_ap50_{name}": f"{low:g} px and more" if math.isinf(high) else f"{low:g}-{high:g} px"
    for name, (low, high) in RANGES.items()
}  # metric -> side of an object in the network's input, in words
IOU_THRESHOLD = 0.5


def input_scales(dataset: Dataset, height: int, width: int) -> dict[str, float]:
    """Input pixels a pixel of the original, for each picture letterboxed into height x width."""
    sizes = {dataset.image_ids[i]: dataset.size(i) for i in range(len(dataset))}
    return {image_id: min(width / w, height / h) for image_id, (w, h) in sizes.items()}


class SizeEvaluator:
    """Values `input_ap50_tiny` ... `input_ap50_large`: means over the classes that have objects of that size."""

    def __init__(self, classes: Sequence[str], scales: Mapping[str, float]) -> None:
        """`scales`: see `input_scales`."""
        self.scales = scales
        self._by_range = {name: VocEvaluator(classes, IOU_THRESHOLD, eleven_points=False) for name in RANGES}

    def add(self, sample_id: str, truth: GroundTruth, detections: Detections) -> None:
        if sample_id not in self.scales:
            raise MetricsError(f"image '{sample_id}' has no scale; was it in the data set that the scales were made of?")
        scale = self.scales[sample_id]
        sides, found_sides = _sides(truth.boxes, scale), _sides(detections.boxes, scale)
        on_object = _on_object(truth, detections)
        for name, (low, high) in RANGES.items():
            other = (sides < low) | (sides >= high)
            counts = on_object | ((found_sides >= low) & (found_sides < high))
            kept = Detections(detections.boxes[counts], detections.scores[counts], detections.labels[counts])
            self._by_range[name].add(sample_id, truth._replace(ignore=truth.ignore | other), kept)

    def result(self) -> Metrics:
        results = {f"input_ap50_{name}": evaluator.result() for name, evaluator in self._by_range.items()}
        values = {name: result.values["voc_ap50_area"] for name, result in results.items()}
        return Metrics(values, next(iter(results.values())).images)

    def resampled(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        parts = {name: evaluator.resampled(weights)["voc_ap50_area"] for name, evaluator in self._by_range.items()}
        return {f"input_ap50_{name}": part for name, part in parts.items()}


def _sides(boxes: np.ndarray, scale: float) -> np.ndarray:
    """(n, 4) xyxy in original pixels -> (n,) in input pixels."""
    boxes = np.asarray(boxes, np.float64)
    return np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)) * scale


def _on_object(truth: GroundTruth, detections: Detections) -> np.ndarray:
    """(n,) bool: detections that lie on an object of their class, whatever its size."""
    if not len(truth.boxes) or not len(detections.boxes):
        return np.zeros(len(detections.boxes), bool)
    iou = overlap(detections.boxes, truth.boxes)
    iou[np.asarray(detections.labels)[:, None] != np.asarray(truth.labels)[None, :]] = -1.0
    return iou.max(axis=1) >= IOU_THRESHOLD
