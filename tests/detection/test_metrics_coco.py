"""COCO evaluator: faster-coco-eval beside it, and the traps of pycocotools."""

import contextlib
import io

import numpy as np
import pytest

from datasets.annotations import GroundTruth
from detection.detections import Detections
from detection.metrics.coco import NAMES, CocoEvaluator
from detection.metrics.common import MetricsError


def truth_of(boxes, labels=None, ignore=None) -> GroundTruth:
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    labels = np.zeros(len(boxes), np.int64) if labels is None else np.asarray(labels, np.int64)
    return GroundTruth(boxes, labels, np.zeros(len(boxes), bool) if ignore is None else np.asarray(ignore, bool))


def found_of(boxes, scores, labels=None) -> Detections:
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    labels = np.zeros(len(boxes), np.int64) if labels is None else np.asarray(labels, np.int64)
    return Detections(boxes, np.asarray(scores, np.float32), labels)


def evaluate(pairs, classes=("a", "b", "c"), ignore="crowd") -> CocoEvaluator:
    evaluator = CocoEvaluator(classes, ignore)
    for i, (truth, found) in enumerate(pairs):
        evaluator.add(f"image{i:03d}", truth, found)
    return evaluator


def random_pairs(seed: int, n_images: int = 20) -> list:
    """Detections that are noisy copies of objects of all sizes, with false alarms, misses, ties and ignored objects."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(n_images):
        n = rng.integers(0, 8)
        corner = rng.random((n, 2)) * 300
        boxes = np.hstack([corner, corner + np.exp(rng.uniform(1.5, 5.5, (n, 2)))])
        labels = rng.integers(0, 3, n)
        keep = rng.random(n) < 0.8
        wrong = rng.random((3, 2)) * 200
        near = boxes[keep] * (1 + rng.normal(0, 0.02, (keep.sum(), 4)))
        near = np.hstack([np.minimum(near[:, :2], near[:, 2:]), np.maximum(near[:, :2], near[:, 2:])])
        found = np.vstack([near, np.hstack([wrong, wrong + 30])])
        scores = -np.sort(-rng.integers(1, 20, len(found)) / 20)
        found_labels = np.concatenate([labels[keep], rng.integers(0, 3, 3)])
        pairs.append((truth_of(boxes, labels, rng.random(n) < 0.2), found_of(found, scores, found_labels)))
    return pairs


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_faster_coco_eval(seed: int) -> None:
    from faster_coco_eval import COCO, COCOeval_faster

    evaluator = evaluate(random_pairs(seed))
    truth, found = evaluator._dataset()
    with contextlib.redirect_stdout(io.StringIO()):
        coco_truth = COCO(truth)
        coco_found = coco_truth.loadRes(found["annotations"])
        judge = COCOeval_faster(coco_truth, coco_found, "bbox", print_function=lambda *_: None)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    values = evaluator.result().values
    assert tuple(values) == NAMES
    expected = [value if value > -1 else np.nan for value in judge.stats[:12]]
    assert [values[name] for name in NAMES] == pytest.approx(expected, nan_ok=True)
    assert 0.1 < values["coco_ap"] < 0.9


def test_perfect_detections_score_one_even_for_the_first_annotation() -> None:
    # With ids from 0 the first object would be read as "no match" and this would be 0.
    result = evaluate([(truth_of([[10, 10, 60, 50]]), found_of([[10, 10, 60, 50]], [0.9]))], ("a",)).result()
    assert result.values["coco_ap"] == pytest.approx(1.0)
    assert result.values["coco_ap_medium"] == pytest.approx(1.0)
    assert np.isnan(result.values["coco_ap_small"]) and np.isnan(result.values["coco_ap_large"])
    assert result.by_class == {"a": {"coco_ap": pytest.approx(1.0), "coco_ap50": pytest.approx(1.0)}}


def test_half_overlap_counts_once_of_ten_thresholds() -> None:
    result = evaluate([(truth_of([[0, 0, 100, 100]]), found_of([[0, 0, 100, 52]], [0.9]))], ("a",)).result()
    assert result.values["coco_ap50"] == pytest.approx(1.0)
    assert result.values["coco_ap75"] == 0.0
    assert result.values["coco_ap"] == pytest.approx(0.1)


def test_nothing_found_is_zero_and_silent(capsys: pytest.CaptureFixture) -> None:
    result = evaluate([(truth_of([[0, 0, 10, 10]]), found_of([], []))]).result()
    assert result.values["coco_ap"] == 0.0
    assert "b, c" in result.notes[0]
    assert capsys.readouterr().out == ""


def test_nothing_to_find_is_nan() -> None:
    assert np.isnan(evaluate([]).result().values["coco_ap"])
    assert np.isnan(evaluate([(truth_of([]), found_of([[0, 0, 5, 5]], [0.5]))]).result().values["coco_ap"])


def test_crowd_swallows_many_and_ignored_object_only_one() -> None:
    # Two objects: one to find, one ignored. Two detections inside the ignored one, best scores of all.
    truth = truth_of([[0, 0, 100, 100], [200, 200, 300, 300]], ignore=[False, True])
    found = found_of([[200, 200, 300, 290], [200, 210, 300, 300], [0, 0, 100, 100]], [0.9, 0.8, 0.7])
    crowd = evaluate([(truth, found)], ("a",), "crowd").result().values
    ignored = evaluate([(truth, found)], ("a",), "ignore").result().values
    assert crowd["coco_ap50"] == pytest.approx(1.0)
    assert ignored["coco_ap50"] == pytest.approx(0.5)  # the second detection of the ignored object is a false alarm


def test_small_detection_inside_a_crowd_is_no_false_alarm() -> None:
    truth = truth_of([[0, 0, 100, 100], [200, 200, 300, 300]], ignore=[False, True])
    found = found_of([[210, 210, 230, 230], [0, 0, 100, 100]], [0.9, 0.7])
    assert evaluate([(truth, found)], ("a",), "crowd").result().values["coco_ap50"] == pytest.approx(1.0)
    assert evaluate([(truth, found)], ("a",), "ignore").result().values["coco_ap50"] == pytest.approx(0.5)


def test_order_of_adding_does_not_matter() -> None:
    pairs = random_pairs(5)
    forward, backward = CocoEvaluator("abc"), CocoEvaluator("abc")
    for i, pair in enumerate(pairs):
        forward.add(f"{i:03d}", *pair)
    for i, pair in reversed(list(enumerate(pairs))):
        backward.add(f"{i:03d}", *pair)
    assert str(forward.result()) == str(backward.result())


def test_bad_input_names_the_image() -> None:
    with pytest.raises(MetricsError, match="'picture'.*label 7"):
        CocoEvaluator(("a",)).add("picture", truth_of([[0, 0, 1, 1]], [7]), found_of([], []))
