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

from collections.abc import Iterable, Iterator, Sequence
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
from detection.metrics.resample import Curve, curve_of, mean_of_classes


class _Found(NamedTuple):
    """Detections of one image that count, best first."""

    scores: np.ndarray  # (n,) float64
    labels: np.ndarray  # (n,) int64
    hits: np.ndarray  # (n,) bool


FALSE_ALARM, NO_MATTER = -1, -2  # what `hits` says of a detection that hits no object; the second met an ignored one


def hits(truth: GroundTruth, detections: Detections, iou_threshold: float) -> np.ndarray:
    """(n,) int64: for each detection of one image the row of the object that it hits, or FALSE_ALARM, or NO_MATTER."""
    found = np.full(len(detections.scores), FALSE_ALARM, np.int64)
    if not len(truth.boxes) or not len(found):
        return found
    order = np.argsort(-np.asarray(detections.scores, np.float64), kind="stable")
    iou = overlap(detections.boxes[order], truth.boxes)
    iou[np.asarray(detections.labels)[order][:, None] != np.asarray(truth.labels)[None, :]] = -1.0
    best = iou.argmax(axis=1)
    near = iou[np.arange(len(best)), best] >= iou_threshold
    candidates = np.flatnonzero(near & ~truth.ignore[best])
    first = candidates[first_of_each(best[candidates])]
    found[order[first]] = best[first]
    found[order[near & truth.ignore[best]]] = NO_MATTER
    return found


def match(truth: GroundTruth, detections: Detections, iou_threshold: float) -> _Found:
    """Mark the detections of one image as hits or false alarms; those on ignored objects are left out."""
    order = np.argsort(-np.asarray(detections.scores, np.float64), kind="stable")
    found = hits(truth, detections, iou_threshold)[order]
    counts = found != NO_MATTER
    scores = np.asarray(detections.scores, np.float64)[order]
    labels = np.asarray(detections.labels, np.int64)[order]
    return _Found(scores[counts], labels[counts], found[counts] >= 0)


def ap_11_points(curve: Curve) -> np.ndarray:
    """VOC 2007: mean over recalls 0, .1, ... 1 of the best precision at that recall or beyond; (r,), NaN without objects.

    Recall found / objects >= k / 10 is compared in integers: in floats, 3 / 10 would miss the threshold 3 * .1.
    """
    precision = curve.precision
    reached = [np.where(10 * curve.found >= k * curve.objects, precision, 0.0) for k in range(11)]
    total = sum(points.max(axis=0, initial=0.0) for points in reached)
    return np.where(curve.objects > 0, total / 11, np.nan)


def ap_area(curve: Curve) -> np.ndarray:
    """VOC 2010 and later: area under the monotone precision-recall curve; (r,), NaN without objects."""
    return np.where(curve.objects > 0, area_under_curve(curve.recall, curve.precision), np.nan)


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
        self._objects: dict[str, np.ndarray] = {}  # image -> (classes,) objects to find

    def add(self, sample_id: str, truth: GroundTruth, detections: Detections) -> None:
        if sample_id in self._found:
            raise MetricsError(f"image '{sample_id}' was added twice")
        check_pair(sample_id, truth, detections)
        check_labels(sample_id, truth, detections, len(self.classes))
        self._objects[sample_id] = np.bincount(truth.labels[~truth.ignore], minlength=len(self.classes))
        self._found[sample_id] = match(truth, detections, self.iou_threshold)

    def result(self) -> Metrics:
        by_metric = self._by_class(np.ones((1, len(self._found)), np.int64))
        by_class = {
            name: {metric: float(values[name][0]) for metric, values in by_metric.items()}
            for name, n_objects in zip(self.classes, self._objects_per_class(), strict=True)
            if n_objects
        }
        values = {metric: float(mean_of_classes(of_class, 1)[0]) for metric, of_class in by_metric.items()}
        absent = [name for name in self.classes if name not in by_class]
        notes = (f"no object to find, left out of the mean: {', '.join(absent)}",) if absent else ()
        return Metrics(values, len(self._found), by_class, notes)

    def resampled(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        return {metric: mean_of_classes(of_class, len(weights)) for metric, of_class in self._by_class(weights).items()}

    def _by_class(self, weights: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        """Metric -> class -> (r,)."""
        curves = dict(zip(self.classes, self._curves(weights), strict=True))
        return {metric: {name: rule(curve) for name, curve in curves.items()} for metric, rule in self._rules.items()}

    def _curves(self, weights: np.ndarray) -> Iterator[Curve]:
        """One a class. Equal scores stay in the order of image ids, and within an image in that of `Detections`."""
        names = sorted(self._found)
        found = [self._found[name] for name in names]
        empty = _Found(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, bool))
        scores, labels, hits = (np.concatenate(parts) for parts in zip(empty, *found, strict=True))
        image = np.repeat(np.arange(len(names)), [len(one.scores) for one in found])
        order = np.argsort(-scores, kind="stable")
        objects = np.array([self._objects[name] for name in names], np.int64).reshape(len(names), len(self.classes))
        for c in range(len(self.classes)):
            of_class = order[labels[order] == c]
            yield curve_of(image[of_class], hits[of_class], objects[:, c], weights)

    def _objects_per_class(self) -> list[int]:
        return sum(self._objects.values(), np.zeros(len(self.classes), np.int64)).tolist()


def ap50(pairs: Iterable[tuple[GroundTruth, Detections]], classes: Sequence[str]) -> float:
    """Mean AP at IoU .5 by area over the classes that occur, NaN when none does: what to follow while training."""
    evaluator = VocEvaluator(classes)
    for i, (truth, detections) in enumerate(pairs):
        evaluator.add(f"{i:09d}", truth, detections)
    return evaluator.result().values["voc_ap50_area"]
