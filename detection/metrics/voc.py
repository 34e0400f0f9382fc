"""PASCAL VOC average precision as the devkit's `VOCevaldet.m` computes it: 11 points (2007) and area (2010 and later).

Pixels. The devkit's boxes are 1-based and include their last pixel, so its widths are `x2 - x1 + 1`. Ours are 0-based
and half-open: devkit (x1, y1, x2, y2) is our (x1 - 1, y1 - 1, x2, y2), and its `+1` width is our plain `x2 - x1`.
Overlaps are therefore equal to the devkit's for boxes read by `datasets/voc.py`; no `+1` must be added a second time.

Matching. Best score first, each detection looks at the object of its class that it overlaps most, difficult ones
included; an overlap of at least the threshold (`>=`, not `>`) is a hit once, a false alarm when that object was hit
before (no second choice), and nothing at all when the object is difficult.

Ties. Equal scores are ordered by image id, then by their order in `Detections`, so the result does not depend on the
order in which images are added.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from datasets.annotations import GroundTruth
from detection.detections import Detections
from detection.metrics.common import (
    Metrics,
    MetricsError,
    area_under_curve,
    check_labels,
    check_pair,
    first_of_each,
    overlap,
)


class _Found(NamedTuple):
    """Detections of one image that count, best first."""

    scores: np.ndarray  # (n,) float64
    labels: np.ndarray  # (n,) int64
    hits: np.ndarray  # (n,) bool


def match(truth: GroundTruth, detections: Detections, iou_threshold: float) -> _Found:
    """Mark the detections of one image as hits or false alarms; those on ignored objects are left out."""
    order = np.argsort(-np.asarray(detections.scores, np.float64), kind="stable")
    scores = np.asarray(detections.scores, np.float64)[order]
    labels = np.asarray(detections.labels, np.int64)[order]
    if not len(truth.boxes) or not len(order):
        return _Found(scores, labels, np.zeros(len(order), bool))
    iou = overlap(detections.boxes[order], truth.boxes)
    iou[labels[:, None] != np.asarray(truth.labels)[None, :]] = -1.0
    best = iou.argmax(axis=1)
    near = iou[np.arange(len(best)), best] >= iou_threshold
    counts = ~(near & truth.ignore[best])
    hits = np.zeros(len(order), bool)
    candidates = np.flatnonzero(near & counts)
    hits[candidates[first_of_each(best[candidates])]] = True
    return _Found(scores[counts], labels[counts], hits[counts])


def ap_11_points(hits: np.ndarray, n_objects: int) -> float:
    """VOC 2007: mean over recalls 0, .1, ... 1 of the best precision at that recall or beyond.

    hits: (n,) bool, best score first. Recall tp / n_objects >= k / 10 is compared in integers: in floats, 3 / 10 would
    miss the threshold 3 * .1.
    """
    true_positives = np.cumsum(hits)
    precision = true_positives / np.arange(1, len(hits) + 1)
    reached = [precision[10 * true_positives >= k * n_objects] for k in range(11)]
    return float(sum(part.max() for part in reached if len(part)) / 11)


def ap_area(hits: np.ndarray, n_objects: int) -> float:
    """VOC 2010 and later: area under the monotone precision-recall curve. hits: (n,) bool, best score first."""
    true_positives = np.cumsum(hits)
    return area_under_curve(true_positives / n_objects, true_positives / np.arange(1, len(hits) + 1))


class VocEvaluator:
    """Values `voc_ap<T>_area` and, with `eleven_points`, `voc_ap<T>_11`; T = 100 * iou_threshold. Means over classes.

    A class whose objects are all ignored, or that has none, is left out of the mean and named in the notes; without any
    class left the values are NaN.
    """

    def __init__(self, classes: Sequence[str], iou_threshold: float = 0.5, eleven_points: bool = True) -> None:
        if not 0 < iou_threshold <= 1:
            raise MetricsError(f"iou threshold {iou_threshold} is outside (0, 1]")
        self.classes = tuple(classes)
        self.iou_threshold = iou_threshold
        prefix = f"voc_ap{round(iou_threshold * 100)}"
        self._rules = {f"{prefix}_area": ap_area} | ({f"{prefix}_11": ap_11_points} if eleven_points else {})
        self._found: dict[str, _Found] = {}
        self._n_objects = np.zeros(len(self.classes), np.int64)

    def add(self, sample_id: str, truth: GroundTruth, detections: Detections) -> None:
        if sample_id in self._found:
            raise MetricsError(f"image '{sample_id}' was added twice")
        check_pair(sample_id, truth, detections)
        check_labels(sample_id, truth, detections, len(self.classes))
        self._n_objects += np.bincount(truth.labels[~truth.ignore], minlength=len(self.classes))
        self._found[sample_id] = match(truth, detections, self.iou_threshold)

    def result(self) -> Metrics:
        hits_per_class = self._hits_per_class()
        by_class = {
            name: {metric: rule(hits, n_objects) for metric, rule in self._rules.items()}
            for name, hits, n_objects in zip(self.classes, hits_per_class, self._n_objects.tolist(), strict=True)
            if n_objects
        }
        values = {metric: _mean([values[metric] for values in by_class.values()]) for metric in self._rules}
        absent = [name for name in self.classes if name not in by_class]
        notes = (f"no object to find, left out of the mean: {', '.join(absent)}",) if absent else ()
        return Metrics(values, len(self._found), by_class, notes)

    def _hits_per_class(self) -> list[np.ndarray]:
        found = [self._found[sample_id] for sample_id in sorted(self._found)]
        if not found:
            return [np.zeros(0, bool)] * len(self.classes)
        scores, labels, hits = (np.concatenate(parts) for parts in zip(*found, strict=True))
        order = np.argsort(-scores, kind="stable")  # within an image best first, images by id
        labels, hits = labels[order], hits[order]
        return [hits[labels == c] for c in range(len(self.classes))]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def ap50(pairs: Iterable[tuple[GroundTruth, Detections]], classes: Sequence[str]) -> float:
    """Mean AP at IoU .5 by area over the classes that occur, NaN when none does: what to follow while training."""
    evaluator = VocEvaluator(classes)
    for i, (truth, detections) in enumerate(pairs):
        evaluator.add(f"{i:09d}", truth, detections)
    return evaluator.result().values["voc_ap50_area"]
