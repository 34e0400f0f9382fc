"""Average precision as a camera computes it: counters per class and score level, integers only.

The twin of firmware/runtime/tess_ap.c, equal to the bit: the same matching, the same roundings. It differs from
`voc.py`'s area in two ways. Detections of one score are one step of the curve, where the sorted list puts them in the order
of picture names; and boxes meet the truth in 1/16 pixel of the network's frame, where a detection was made, instead of in the
original picture. Matching is PASCAL VOC's (see voc.py), scores are Q15, average precision is Q30.
"""

from collections.abc import Sequence

import numpy as np

from datasets.annotations import GroundTruth
from detection.metrics.common import MetricsError

Q4, Q15, Q30 = 16, 1 << 15, 1 << 30


def ap_grouped(hits: Sequence[int], misses: Sequence[int], n_objects: int) -> int | None:
    """Area under the monotone precision-recall curve in Q30; None without an object.

    hits, misses: detections of each score level that found an object or none, lowest level first. Every level is one step.
    """
    if n_objects == 0:
        return None
    found, total, best, area = sum(hits), sum(hits) + sum(misses), 0, 0
    for hit, miss in zip(hits, misses, strict=True):  # from the end of the curve, where recall is highest
        best = max(best, ((found << 30) + total // 2) // total if total else 0)
        area += hit * best
        found, total = found - hit, total - hit - miss
    return (area + n_objects // 2) // n_objects


def q4_corners(truth: GroundTruth) -> np.ndarray:
    """Corners of the truth in 1/16 pixel of the picture, halves up: int64 (n, 4). Raises MetricsError unless they are xyxy."""
    corners = np.floor(truth.boxes.astype(np.float64) * Q4 + 0.5).astype(np.int64)
    if (corners[:, 2:] < corners[:, :2]).any():
        raise MetricsError("truth has a box that ends before it starts; boxes are xyxy")
    return corners


def place_truth(truth: GroundTruth, size: tuple[int, int], content: tuple[int, int]) -> np.ndarray:
    """Truth in the network's frame, int32 (n, 6): x1, y1, x2, y2 in 1/16 pixel, label, ignore.

    `size` is (width, height) of the original picture, `content` the part of the frame that the letterbox fills with it.
    Corners are rounded to 1/16 pixel of the picture, then of the frame, halves up, clipped to the content.
    """
    size_of, content_of = (np.array([side[0], side[1]] * 2, np.int64) for side in (size, content))
    corners = q4_corners(truth)
    limit = Q4 * content_of
    placed = np.minimum((2 * np.maximum(corners, 0) * content_of + size_of) // (2 * size_of), limit)
    placed[:, :2] = np.minimum(placed[:, :2], limit[:2] - 1)
    placed[:, 2:] = np.maximum(placed[:, 2:], placed[:, :2] + 1)
    return np.column_stack([placed, truth.labels, truth.ignore]).astype(np.int32)


class GroupedAp:
    """Counts pictures. `levels`: Q15 scores, ascending; a detection counts at the highest level not above its score."""

    def __init__(self, levels: Sequence[int], n_classes: int, iou_threshold: int = Q15 // 2) -> None:
        if not len(levels) or (np.diff(levels) <= 0).any():
            raise MetricsError("score levels are empty or not ascending")
        if not 0 < iou_threshold <= Q15:
            raise MetricsError(f"iou threshold {iou_threshold} is outside of (0, {Q15}]")
        self.levels = np.asarray(levels, np.int64)
        self.iou_threshold = iou_threshold
        self.objects = [0] * n_classes
        self.hits = np.zeros((n_classes, len(levels)), np.int64)
        self.misses = np.zeros((n_classes, len(levels)), np.int64)

    def add(self, boxes: np.ndarray, truth: np.ndarray) -> None:
        """One picture: `boxes` (n, 6) x1, y1, x2, y2, score, label as the runtime gives them, `truth` as `place_truth` does."""
        level = np.searchsorted(self.levels, boxes[:, 4], side="right") - 1
        if (level < 0).any() or (np.diff(boxes[:, 4].astype(np.int64)) > 0).any():
            raise MetricsError("a score is below the first level, or boxes are not best first")
        for label in truth[truth[:, 5] == 0, 4]:
            self.objects[label] += 1
        taken: set[int] = set()
        for box, at in zip(boxes, level, strict=True):
            found = self._best_object(box, truth)
            if found is not None and truth[found, 5]:
                continue
            counts = self.misses if found is None or found in taken else self.hits  # no second choice
            counts[box[5], at] += 1
            taken.update([] if found is None else [found])

    def _best_object(self, box: np.ndarray, truth: np.ndarray) -> int | None:
        """The object of the box's class that it overlaps most, the first of equals; None when it overlaps none enough."""
        box, objects = box.astype(np.int64), truth.astype(np.int64)
        sides = np.minimum(box[2:4], objects[:, 2:4]) - np.maximum(box[:2], objects[:, :2])
        inter = np.where(objects[:, 4] == box[5], np.prod(np.maximum(sides, 0), axis=1), 0)
        union = np.prod(box[2:4] - box[:2]) + np.prod(objects[:, 2:4] - objects[:, :2], axis=1) - inter
        best, best_inter, best_union = None, 0, 1
        for k in np.flatnonzero(inter).tolist():
            if int(inter[k]) * best_union > best_inter * int(union[k]):
                best, best_inter, best_union = k, int(inter[k]), int(union[k])
        return best if best_inter * Q15 >= self.iou_threshold * best_union else None

    def average_precision(self, label: int) -> int | None:
        """Of one class, Q30; None when no object of it is to be found."""
        return ap_grouped(self.hits[label].tolist(), self.misses[label].tolist(), self.objects[label])

    def mean(self) -> int | None:
        """Over the classes that have objects, Q30, halves up."""
        known = [ap for ap in map(self.average_precision, range(len(self.objects))) if ap is not None]
        return (sum(known) + len(known) // 2) // len(known) if known else None
