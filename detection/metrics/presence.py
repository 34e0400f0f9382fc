"""Is an object of a class in the picture? Accuracy and AP over pictures, for classifiers.

A picture shows a class when an object of it covers at least 0.5 % of the picture, the rule of Visual Wake Words (Chowdhery et
al., 2019). Where only ignored objects do, the picture counts neither way. Detections are one a class, each a box that covers the
whole picture (`detection/presence.py`); that box is where the picture's area is read from.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from datasets.annotations import GroundTruth
from detection.detections import Detections
from detection.metrics.common import Metrics, MetricsError, check_labels, check_pair
from detection.metrics.resample import curve_of, mean_of_classes
from detection.metrics.voc import ap_area

MIN_AREA = 0.005  # share of the picture
THRESHOLD = 0.5  # score from which on a class is said to be there


class _Answer(NamedTuple):
    """Of one picture, a class each."""

    scores: np.ndarray  # (K,) float64
    shown: np.ndarray  # (K,) bool
    counts: np.ndarray  # (K,) bool


class PresenceEvaluator:
    """Values `presence_accuracy`, `presence_majority` (the accuracy of always giving the commoner answer), `presence_balanced`
    (mean of hit rate and rejection rate) and `presence_ap` (area under the curve of pictures ranked by score, as VOC's
    classification task), means over classes; the same by class."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._answers: dict[str, _Answer] = {}

    def add(self, sample_id: str, truth: GroundTruth, detections: Detections) -> None:
        if sample_id in self._answers:
            raise MetricsError(f"image '{sample_id}' was added twice")
        check_pair(sample_id, truth, detections)
        check_labels(sample_id, truth, detections, len(self.classes))
        if sorted(detections.labels.tolist()) != list(range(len(self.classes))):
            raise MetricsError(f"image '{sample_id}': a classifier answers once for each of {len(self.classes)} classes")
        sides = detections.boxes[0, 2:] - detections.boxes[0, :2]
        areas = np.prod(truth.boxes[:, 2:] - truth.boxes[:, :2], axis=1)
        large = areas >= MIN_AREA * float(np.prod(sides))
        of_class = truth.labels[:, None] == np.arange(len(self.classes))
        shown = (of_class & (large & ~truth.ignore)[:, None]).any(axis=0)
        unsure = (of_class & (large & truth.ignore)[:, None]).any(axis=0)
        scores = np.empty(len(self.classes))
        scores[detections.labels] = detections.scores
        self._answers[sample_id] = _Answer(scores, shown, shown | ~unsure)

    def result(self) -> Metrics:
        by_metric = self._by_class(np.ones((1, len(self._answers)), np.int64))
        by_class = {name: {metric: float(of[name][0]) for metric, of in by_metric.items()} for name in self.classes}
        values = {metric: float(mean_of_classes(of_class, 1)[0]) for metric, of_class in by_metric.items()}
        return Metrics(values, len(self._answers), by_class)

    def resampled(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        return {metric: mean_of_classes(of_class, len(weights)) for metric, of_class in self._by_class(weights).items()}

    def _by_class(self, weights: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        """Metric -> class -> (r,)."""
        answers = [self._answers[name] for name in sorted(self._answers)]
        shape = (len(answers), len(self.classes))
        scores, shown, counts = (np.array([one[part] for one in answers]).reshape(shape) for part in range(3))
        metrics = ("presence_accuracy", "presence_majority", "presence_balanced", "presence_ap")
        found: dict[str, dict[str, np.ndarray]] = {metric: {} for metric in metrics}
        for c, name in enumerate(self.classes):
            yes, no = (weights * (counts[:, c] & here) for here in (shown[:, c].astype(bool), ~shown[:, c].astype(bool)))
            said = scores[:, c] >= THRESHOLD
            hits, rejected = _share(yes @ said, yes.sum(1)), _share(no @ ~said, no.sum(1))
            found["presence_accuracy"][name] = _share(yes @ said + no @ ~said, (yes + no).sum(1))
            found["presence_majority"][name] = _share(np.maximum(yes.sum(1), no.sum(1)), (yes + no).sum(1))
            found["presence_balanced"][name] = (hits + rejected) / 2
            order = [i for i in np.argsort(-scores[:, c], kind="stable") if counts[i, c]]
            objects = (shown[:, c] & counts[:, c]).astype(np.int64)
            found["presence_ap"][name] = ap_area(curve_of(np.array(order, np.int64), objects[order] > 0, objects, weights))
        return found


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def presence_ap(pairs: Iterable[tuple[GroundTruth, Detections]], classes: Sequence[str]) -> float:
    """`presence_ap`, NaN when no picture shows a class: what to follow while training."""
    evaluator = PresenceEvaluator(classes)
    for i, (truth, detections) in enumerate(pairs):
        evaluator.add(f"{i:09d}", truth, detections)
    return evaluator.result().values["presence_ap"]
