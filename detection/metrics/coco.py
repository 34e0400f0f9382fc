"""COCO average precision, computed by pycocotools; this file only builds what it reads.

* Truth and detections are in pixels of the original picture, so "small" (< 32^2) and "large" (> 96^2) mean what they
  mean in COCO. `GroundTruth` has no segmentation, so an object's area is that of its box; on COCO itself, whose `area`
  is the segmentation's, the values by size differ a little from published ones.
* Ids start at 1: pycocotools reads annotation id 0 as "no match".
* What an ignored object means is a choice. "crowd" is COCO's: `iscrowd`, overlap is intersection / detection, matched
  any number of times. "ignore" is for difficult (VOC) and invalid (WIDER FACE) objects: the usual overlap, matched
  once, neither hit nor miss. pycocotools overwrites a custom ignore flag by `iscrowd`, hence `_Eval` below.
* Images are numbered by sorted id, so ties do not depend on the order of `add`.
"""

import contextlib
import io
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from datasets.annotations import GroundTruth
from detection.detections import Detections
from detection.metrics.common import Metrics, MetricsError, check_labels, check_pair
from detection.metrics.resample import Curve, curve_of, mean_of_classes

NAMES = (
    "coco_ap", "coco_ap50", "coco_ap75", "coco_ap_small", "coco_ap_medium", "coco_ap_large",
    "coco_ar1", "coco_ar10", "coco_ar100", "coco_ar_small", "coco_ar_medium", "coco_ar_large",
)  # fmt: skip  # in the order of pycocotools' `stats`


AREA_OF = {
    "coco_ap": "all", "coco_ap50": "all", "coco_ap75": "all",
    "coco_ap_small": "small", "coco_ap_medium": "medium", "coco_ap_large": "large",
}  # fmt: skip


class _Pair(NamedTuple):
    truth: GroundTruth
    detections: Detections


class CocoEvaluator:
    """Values `coco_ap`, `coco_ap50`, ... `coco_ar_large` (see NAMES), per class `coco_ap` and `coco_ap50`."""

    def __init__(self, classes: Sequence[str], ignore: Literal["crowd", "ignore"] = "crowd") -> None:
        self.classes = tuple(classes)
        self.ignore = ignore
        self._pairs: dict[str, _Pair] = {}
        self._evaluation: Any = None  # of the pairs so far

    def add(self, sample_id: str, truth: GroundTruth, detections: Detections) -> None:
        if sample_id in self._pairs:
            raise MetricsError(f"image '{sample_id}' was added twice")
        check_pair(sample_id, truth, detections)
        check_labels(sample_id, truth, detections, len(self.classes))
        self._pairs[sample_id] = _Pair(truth, detections)
        self._evaluation = None

    def result(self) -> Metrics:
        if not self._pairs:
            return Metrics(dict.fromkeys(NAMES, float("nan")), 0)
        evaluation = self._evaluated()
        values = {name: _or_nan(value) for name, value in zip(NAMES, evaluation.stats, strict=True)}
        precision = evaluation.eval["precision"][:, :, :, 0, -1]  # (threshold, recall, class), all areas
        by_class = {
            name: {"coco_ap": _mean_known(precision[:, :, c]), "coco_ap50": _mean_known(precision[0, :, c])}
            for c, name in enumerate(self.classes)
            if (precision[:, :, c] > -1).any()
        }
        absent = [name for name in self.classes if name not in by_class]
        notes = (f"no object to find, left out of the mean: {', '.join(absent)}",) if absent else ()
        return Metrics(values, len(self._pairs), by_class, notes)

    def resampled(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The AP values among NAMES. pycocotools has matched; its `accumulate`, which knows no weights, is done again here."""
        if not self._pairs:
            return {name: np.full(len(weights), np.nan) for name in AREA_OF}
        evaluation = self._evaluated()
        precision = {area: self._precision(evaluation, i, weights) for i, area in enumerate(evaluation.params.areaRngLbl)}
        values = {name: _mean_over(precision[area]) for name, area in AREA_OF.items()}
        every = precision["all"]
        return values | {"coco_ap50": _mean_over(every[:, :1]), "coco_ap75": _mean_over(every[:, 5:6])}

    def _precision(self, evaluation: Any, area: int, weights: np.ndarray) -> np.ndarray:
        """(class, threshold, r): mean precision at 101 recalls, NaN where nothing is to be found."""
        n_images, n_areas = len(evaluation.params.imgIds), len(evaluation.params.areaRng)
        values = np.full((len(self.classes), len(evaluation.params.iouThrs), len(weights)), np.nan)
        for c in range(len(self.classes)):
            first = (c * n_areas + area) * n_images
            images = evaluation.evalImgs[first : first + n_images]  # None: neither objects nor detections
            known = [(i, one) for i, one in enumerate(images) if one is not None]
            objects = np.zeros(n_images, np.int64)
            if not known:
                continue
            objects[[i for i, _ in known]] = [np.count_nonzero(one["gtIgnore"] == 0) for _, one in known]
            order = np.argsort(-np.concatenate([one["dtScores"] for _, one in known]), kind="stable")
            image = np.repeat([i for i, _ in known], [len(one["dtScores"]) for _, one in known])[order]
            matched = np.concatenate([one["dtMatches"] for _, one in known], axis=1)[:, order] > 0
            ignored = np.concatenate([one["dtIgnore"] for _, one in known], axis=1)[:, order] > 0
            for t in range(len(values[c])):
                counts = ~ignored[t]
                curve = curve_of(image[counts], matched[t, counts], objects, weights)
                values[c, t] = _at_101_recalls(curve, evaluation.params.recThrs)
        return values

    def _evaluated(self) -> Any:
        if self._evaluation is None:
            self._evaluation = self._evaluate()
        return self._evaluation

    def _evaluate(self) -> Any:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        class _Eval(COCOeval):
            def _prepare(self) -> None:  # keeps an `ignore` that is not a crowd
                super()._prepare()
                for annotations in self._gts.values():
                    for annotation in annotations:
                        annotation["ignore"] = annotation["iscrowd"] or annotation["difficult"]

        truth, found = self._dataset()
        with contextlib.redirect_stdout(io.StringIO()):
            coco_truth, coco_found = COCO(), COCO()
            coco_truth.dataset, coco_found.dataset = truth, found
            coco_truth.createIndex()
            coco_found.createIndex()  # not loadRes: it cannot take an empty list
            evaluation = _Eval(coco_truth, coco_found, "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return evaluation

    def _dataset(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Truth and detections as two COCO data sets with the same images and categories."""
        images = [{"id": i} for i in range(1, len(self._pairs) + 1)]
        categories = [{"id": c, "name": name} for c, name in enumerate(self.classes, start=1)]
        truths: list[dict[str, Any]] = []
        found: list[dict[str, Any]] = []
        for image_id, sample_id in enumerate(sorted(self._pairs), start=1):
            truth, detections = self._pairs[sample_id]
            for box, label, ignored in zip(truth.boxes, truth.labels, truth.ignore, strict=True):
                record = _record(len(truths) + 1, image_id, box, label)
                crowd = bool(ignored) and self.ignore == "crowd"
                truths.append(record | {"iscrowd": int(crowd), "difficult": int(bool(ignored) and not crowd)})
            for box, label, score in zip(detections.boxes, detections.labels, detections.scores, strict=True):
                found.append(_record(len(found) + 1, image_id, box, label) | {"iscrowd": 0, "score": float(score)})
        return ({"images": images, "categories": categories, "annotations": truths},
                {"images": images, "categories": categories, "annotations": found})  # fmt: skip


def _record(number: int, image_id: int, box: np.ndarray, label: int) -> dict[str, Any]:
    x1, y1, x2, y2 = (float(v) for v in box)
    width, height = x2 - x1, y2 - y1
    return {
        "id": number,
        "image_id": image_id,
        "category_id": int(label) + 1,
        "bbox": [x1, y1, width, height],
        "area": width * height,
    }


def _at_101_recalls(curve: Curve, recalls: np.ndarray) -> np.ndarray:
    """Mean over `recalls` of the best precision at each or beyond, 0 past the end of the curve; (r,), NaN without objects."""
    n, columns = curve.found.shape
    envelope = np.zeros((n + 1, columns))
    envelope[:n] = np.maximum.accumulate(curve.precision[::-1], axis=0)[::-1]
    recall = curve.recall
    values = [envelope[np.searchsorted(recall[:, j], recalls), j].mean() for j in range(columns)]
    return np.where(curve.objects > 0, values, np.nan)


def _mean_over(precision: np.ndarray) -> np.ndarray:
    """(class, threshold, r) -> (r,): the mean of what is defined."""
    flat = precision.reshape(-1, precision.shape[-1])
    return mean_of_classes({str(i): row for i, row in enumerate(flat)}, precision.shape[-1])


def _or_nan(value: float) -> float:
    """pycocotools writes -1 where nothing defines a value."""
    return float(value) if value > -1 else float("nan")


def _mean_known(precision: np.ndarray) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else float("nan")
