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

NAMES = (
    "coco_ap", "coco_ap50", "coco_ap75", "coco_ap_small", "coco_ap_medium", "coco_ap_large",
    "coco_ar1", "coco_ar10", "coco_ar100", "coco_ar_small", "coco_ar_medium", "coco_ar_large",
)  # fmt: skip  # in the order of pycocotools' `stats`


class _Pair(NamedTuple):
    truth: GroundTruth
    detections: Detections


class CocoEvaluator:
    """Values `coco_ap`, `coco_ap50`, ... `coco_ar_large` (see NAMES), per class `coco_ap` and `coco_ap50`."""

    def __init__(self, classes: Sequence[str], ignore: Literal["crowd", "ignore"] = "crowd") -> None:
        self.classes = tuple(classes)
        self.ignore = ignore
        self._pairs: dict[str, _Pair] = {}

    def add(self, sample_id: str, truth: GroundTruth, detections: Detections) -> None:
        if sample_id in self._pairs:
            raise MetricsError(f"image '{sample_id}' was added twice")
        check_pair(sample_id, truth, detections)
        check_labels(sample_id, truth, detections, len(self.classes))
        self._pairs[sample_id] = _Pair(truth, detections)

    def result(self) -> Metrics:
        if not self._pairs:
            return Metrics(dict.fromkeys(NAMES, float("nan")), 0)
        evaluation = self._evaluate()
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


def _or_nan(value: float) -> float:
    """pycocotools writes -1 where nothing defines a value."""
    return float(value) if value > -1 else float("nan")


def _mean_known(precision: np.ndarray) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else float("nan")
