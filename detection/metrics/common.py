"""What every evaluator shares: the result type, the interface, box overlap and the area under a precision-recall curve.

An evaluator eats pairs of truth and detections, one image at a time. It never sees a model, a device or a tensor.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from datasets.annotations import GroundTruth
from detection.detections import Detections


class MetricsError(ValueError):
    """Truth or detections that no protocol can score. The message names the image."""


@dataclass(frozen=True)
class Metrics:
    """What an evaluator found. A value that the data cannot define (no small object, say) is NaN, never 0 or -1."""

    values: Mapping[str, float]  # by protocol name, e.g. "voc_ap50_area", "wider_easy"; fractions in [0, 1]
    images: int  # how many images were added
    by_class: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # class name -> metric name -> value
    notes: tuple[str, ...] = ()  # what a reader must know beside the values, e.g. classes left out of a mean


class Evaluator(Protocol):
    """One evaluation protocol. `result` may be asked at any time and does not change the evaluator."""

    def add(self, sample_id: str, truth: GroundTruth, detections: Detections) -> None: ...

    def result(self) -> Metrics: ...

    def resampled(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """`values` when image i of the sorted ids counts weights[:, i] times: (r, images) int -> name -> (r,)."""
        ...


def check_pair(sample_id: str, truth: GroundTruth, detections: Detections) -> None:
    """Raise MetricsError unless both are well-formed: matching lengths, finite boxes and scores, no negative extent."""
    truth_lengths = {len(truth.boxes), len(truth.labels), len(truth.ignore)}
    found_lengths = {len(detections.boxes), len(detections.scores), len(detections.labels)}
    if len(truth_lengths) > 1:
        raise MetricsError(f"image '{sample_id}': truth has {sorted(truth_lengths)} boxes, labels and ignore flags")
    if len(found_lengths) > 1:
        raise MetricsError(f"image '{sample_id}': detections have {sorted(found_lengths)} boxes, scores and labels")
    for name, boxes in (("truth", truth.boxes), ("detections", detections.boxes)):
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise MetricsError(f"image '{sample_id}': {name} boxes have shape {boxes.shape}, not (n, 4)")
        if not np.isfinite(boxes).all():
            raise MetricsError(f"image '{sample_id}': {name} boxes are not finite")
        if (boxes[:, 2:] < boxes[:, :2]).any():
            raise MetricsError(f"image '{sample_id}': {name} have a box that ends before it starts; boxes are xyxy")
    if not np.isfinite(detections.scores).all():
        raise MetricsError(f"image '{sample_id}': scores are not finite")


def check_labels(sample_id: str, truth: GroundTruth, detections: Detections, n_classes: int) -> None:
    """Raise MetricsError when a label is no index into the class list."""
    for name, labels in (("truth", truth.labels), ("detections", detections.labels)):
        outside = labels[(labels < 0) | (labels >= n_classes)]
        if len(outside):
            raise MetricsError(f"image '{sample_id}': {name} have label {outside[0]}, there are {n_classes} classes")


def overlap(a: np.ndarray, b: np.ndarray, extra: float = 0.0) -> np.ndarray:
    """Intersection over union of every a with every b: (n, 4), (m, 4) xyxy -> (n, m) float64.

    `extra` is added to every width and height: 0 for half-open boxes, 1 for boxes whose last pixel is included.
    Boxes without area overlap nothing.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    size = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2]) + extra
    inter = np.prod(np.maximum(size, 0.0), axis=2)
    area_a = np.prod(a[:, 2:] - a[:, :2] + extra, axis=1)
    area_b = np.prod(b[:, 2:] - b[:, :2] + extra, axis=1)
    union = area_a[:, None] + area_b[None, :] - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def area_under_curve(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Area under the monotone envelope of curves of rising recall, (n,) or (n, r): VOC 2010 and later, WIDER FACE."""
    ends = np.zeros((1, *recall.shape[1:]))
    recall = np.concatenate((ends, recall))
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    return np.sum(np.diff(recall, axis=0) * envelope, axis=0)


def first_of_each(values: np.ndarray) -> np.ndarray:
    """True where a value occurs for the first time: (n,) -> (n,) bool."""
    first = np.zeros(len(values), bool)
    first[np.unique(values, return_index=True)[1]] = True
    return first
