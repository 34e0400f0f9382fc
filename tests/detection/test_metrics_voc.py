"""VOC average precision: a loop that follows the devkit as judge, published tiny cases, hand-computed curves."""


import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.annotations import GroundTruth
from detection.detections import Detections
from detection.metrics.common import MetricsError
from detection.metrics.resample import plain_curve
from detection.metrics.voc import FALSE_ALARM, NO_MATTER, VocEvaluator, ap50, ap_11_points, ap_area, hits


def truth_of(boxes, labels=None, ignore=None) -> GroundTruth:
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    labels = np.zeros(len(boxes), np.int64) if labels is None else np.asarray(labels, np.int64)
    ignore = np.zeros(len(boxes), bool) if ignore is None else np.asarray(ignore, bool)
    return GroundTruth(boxes, labels, ignore)


def found_of(boxes, scores, labels=None) -> Detections:
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    labels = np.zeros(len(boxes), np.int64) if labels is None else np.asarray(labels, np.int64)
    return Detections(boxes, np.asarray(scores, np.float32), labels)


def devkit(pairs, label: int) -> tuple[float, float]:
    """The devkit's loop for one class: (area, 11 points). Boxes go from half-open 0-based to its inclusive 1-based."""
    detections, objects, n_positive = [], {}, 0
    for name in sorted(pairs):
        truth, found = pairs[name]
        objects[name] = [
            {"box": (b[0] + 1, b[1] + 1, b[2], b[3]), "difficult": d, "taken": False}
            for b, c, d in zip(truth.boxes.tolist(), truth.labels, truth.ignore, strict=True)
            if c == label
        ]
        n_positive += sum(not o["difficult"] for o in objects[name])
        for b, s, c in zip(found.boxes.tolist(), found.scores.tolist(), found.labels, strict=True):
            if c == label:
                detections.append((s, name, (b[0] + 1, b[1] + 1, b[2], b[3])))
    if not n_positive:
        return float("nan"), float("nan")
    detections.sort(key=lambda d: -d[0])
    recall, precision, tp, fp = [], [], 0, 0
    for _, name, box in detections:
        best, chosen = -1.0, None
        for candidate in objects[name]:
            other = candidate["box"]
            width = min(box[2], other[2]) - max(box[0], other[0]) + 1
            height = min(box[3], other[3]) - max(box[1], other[1]) + 1
            if width > 0 and height > 0:
                union = (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
                union += (other[2] - other[0] + 1) * (other[3] - other[1] + 1) - width * height
                if width * height / union > best:
                    best, chosen = width * height / union, candidate
        if best >= 0.5:
            if not chosen["difficult"]:
                if not chosen["taken"]:
                    tp, chosen["taken"] = tp + 1, True
                else:
                    fp += 1
        else:
            fp += 1
        recall.append((tp, n_positive))
        precision.append(tp / (tp + fp) if tp + fp else 0.0)
    points = sum(
        max((p for (t, n), p in zip(recall, precision, strict=True) if 10 * t >= k * n), default=0.0) for k in range(11)
    )
    mrec = [0.0, *[t / n for t, n in recall], 1.0]
    mpre = [0.0, *precision, 0.0]
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    area = sum((mrec[i] - mrec[i - 1]) * mpre[i] for i in range(1, len(mrec)) if mrec[i] != mrec[i - 1])
    return area, points / 11


def random_pairs(rng: np.random.Generator, n_images: int, n_classes: int) -> dict:
    def boxes(n):
        corner = rng.integers(0, 12, (n, 2))
        return np.hstack([corner, corner + rng.integers(1, 9, (n, 2))])

    pairs = {}
    for i in range(n_images):
        n, m = rng.integers(0, 4), rng.integers(0, 7)
        truth = truth_of(boxes(n), rng.integers(0, n_classes, n), rng.random(n) < 0.3)
        scores = -np.sort(-rng.integers(0, 8, m) / 8)
        pairs[f"image{i}"] = (truth, found_of(boxes(m), scores, rng.integers(0, n_classes, m)))
    return pairs


def evaluate(pairs: dict, classes=("a", "b")) -> VocEvaluator:
    evaluator = VocEvaluator(classes)
    for name, (truth, found) in pairs.items():
        evaluator.add(name, truth, found)
    return evaluator


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_equals_the_loop_of_the_devkit(seed: int, n_images: int) -> None:
    pairs = random_pairs(np.random.default_rng(seed), n_images, 2)
    result = evaluate(pairs).result()
    expected = [devkit(pairs, label) for label in range(2)]
    for name, (area, points) in zip(("a", "b"), expected, strict=True):
        assert (name in result.by_class) == (not np.isnan(area))
        if name in result.by_class:
            assert result.by_class[name]["voc_ap50_area"] == pytest.approx(area, abs=1e-12)
            assert result.by_class[name]["voc_ap50_11"] == pytest.approx(points, abs=1e-12)
    known = [area for area, _ in expected if not np.isnan(area)]
    assert result.values["voc_ap50_area"] == pytest.approx(np.mean(known) if known else np.nan, nan_ok=True)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_order_of_adding_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = random_pairs(rng, 6, 2)
    shuffled = {name: pairs[name] for name in rng.permutation(sorted(pairs))}
    assert str(evaluate(pairs).result()) == str(evaluate(shuffled).result())


def test_equal_scores_go_by_image_id() -> None:
    wrong = (truth_of([]), found_of([[0, 0, 10, 10]], [0.5]))
    right = (truth_of([[0, 0, 10, 10]]), found_of([[0, 0, 10, 10]], [0.5]))
    for pairs in ({"a": wrong, "b": right}, {"b": right, "a": wrong}):
        assert evaluate(pairs, ("x",)).result().values["voc_ap50_area"] == 0.5
    assert evaluate({"b": wrong, "a": right}, ("x",)).result().values["voc_ap50_area"] == 1.0


def test_perfect_detections_score_one() -> None:
    truth = truth_of([[0, 0, 10, 10], [20, 20, 50, 40], [5, 5, 9, 9]], [0, 1, 1], [False, False, True])
    result = evaluate({"x": (truth, found_of(truth.boxes, [0.9, 0.8, 0.7], truth.labels))}).result()
    assert result.values == {"voc_ap50_area": 1.0, "voc_ap50_11": 1.0}


# chainercv's test_eval_detection_voc.py (MIT); its pixels include the last one, hence `+ 1` on the far corner.
def inclusive(boxes) -> np.ndarray:
    return np.asarray(boxes, np.float32).reshape(-1, 4) + [0, 0, 1, 1]


def chainercv_single(iou_threshold: float, difficult: bool = False) -> float:
    found = found_of(inclusive([[0.3, 0.3, 0.5, 0.5], [0, 0, 2, 2], [0, 0, 1, 1]]), [1.0, 0.9, 0.8])
    truth = truth_of(inclusive([[0, 0, 1, 0.9]]))
    if difficult:
        truth = truth_of(inclusive([[0, 0, 1, 0.9], [1, 1, 2, 2]]), ignore=[False, True])
    evaluator = VocEvaluator(("a",), iou_threshold)
    evaluator.add("x", truth, found)
    return evaluator.result().values[f"voc_ap{round(iou_threshold * 100)}_area"]


def test_chainercv_one_box() -> None:
    assert chainercv_single(0.5) == pytest.approx(1 / 3)  # precision 0, 0, 1/3
    assert chainercv_single(0.5, difficult=True) == pytest.approx(1 / 3)
    assert chainercv_single(0.97) == 0.0


def test_chainercv_two_classes() -> None:
    evaluator = VocEvaluator(("a", "b"), 0.4)
    first = found_of(inclusive([[0, 4, 1, 5], [0, 0, 1, 1]]), [1.0, 0.9])
    evaluator.add("1", truth_of(inclusive([[0, 0, 1, 1], [1, 0, 4, 4]])), first)
    second = found_of(inclusive([[5, 5, 7, 7], [0, 0, 2, 2], [2, 2, 3, 3]]), [0.8, 0.7, 0.6], [1, 0, 1])
    evaluator.add("2", truth_of(inclusive([[2, 2, 3, 3]]), [1]), second)
    by_class = evaluator.result().by_class
    assert by_class["a"]["voc_ap40_area"] == pytest.approx(0.25)
    assert by_class["a"]["voc_ap40_11"] == pytest.approx(0.5 / 11 * 6)
    assert by_class["b"] == {"voc_ap40_area": pytest.approx(0.5), "voc_ap40_11": pytest.approx(0.5)}


def test_recall_of_exactly_three_tenths_reaches_its_point() -> None:
    curve = plain_curve(np.array([True] * 3), 10)
    assert ap_11_points(curve) == pytest.approx([4 / 11])  # recalls 0, .1, .2 and .3; floats would lose .3
    assert ap_area(curve) == pytest.approx([0.3])


def test_sample_of_the_object_detection_metrics_readme() -> None:
    """rafaelpadilla/Object-Detection-Metrics: 15 objects, 24 detections, 26.84 % and 24.56 %."""
    hits = np.zeros(24, bool)
    hits[[0, 2, 9, 11, 12, 13, 22]] = True
    assert ap_11_points(plain_curve(hits, 15)) == pytest.approx([0.2684], abs=5e-5)
    assert ap_area(plain_curve(hits, 15)) == pytest.approx([0.2457], abs=5e-5)


def test_overlap_of_exactly_half_is_a_hit() -> None:
    truth = truth_of([[0, 0, 10, 10]])
    assert evaluate({"x": (truth, found_of([[0, 0, 10, 5]], [0.5]))}, ("a",)).result().values["voc_ap50_area"] == 1.0
    assert evaluate({"x": (truth, found_of([[0, 0, 10, 4.99]], [0.5]))}, ("a",)).result().values["voc_ap50_area"] == 0.0


def test_second_detection_of_an_object_has_no_second_choice() -> None:
    # Both detections overlap the first object most; the second one could still have found the other object.
    truth = truth_of([[0, 0, 10, 10], [2, 0, 12, 10]])
    found = found_of([[0, 0, 10, 10], [0.9, 0, 10.9, 10]], [0.9, 0.8])
    assert evaluate({"x": (truth, found)}, ("a",)).result().values["voc_ap50_area"] == pytest.approx(0.5)


def test_difficult_objects_cost_nothing() -> None:
    truth = truth_of([[0, 0, 10, 10], [20, 0, 30, 10]], ignore=[False, True])
    found = found_of([[20, 0, 30, 10], [20, 0, 30, 9], [0, 0, 10, 10]], [0.9, 0.8, 0.7])
    assert evaluate({"x": (truth, found)}, ("a",)).result().values["voc_ap50_area"] == 1.0


def test_class_without_objects_is_left_out_and_named() -> None:
    truth = truth_of([[0, 0, 10, 10], [20, 0, 30, 10]], [0, 1], [False, True])
    result = evaluate({"x": (truth, found_of([[0, 0, 10, 10], [50, 50, 60, 60]], [0.9, 0.8], [0, 2]))}, "abc").result()
    assert result.values["voc_ap50_area"] == 1.0
    assert set(result.by_class) == {"a"}
    assert "b, c" in result.notes[0]


def test_nothing_at_all_is_nan() -> None:
    assert np.isnan(VocEvaluator(("a",)).result().values["voc_ap50_area"])
    assert np.isnan(ap50([], ("a",)))


def test_truth_without_detections_is_zero() -> None:
    assert ap50([(truth_of([[0, 0, 5, 5]]), found_of([], []))], ("a",)) == 0.0


@pytest.mark.parametrize(
    ("truth", "found", "message"),
    [
        (truth_of([[0, 0, 5, 5]], [3]), found_of([], []), "label 3"),
        (truth_of([]), found_of([[0, 0, 5, 5]], [0.5], [-1]), "label -1"),
        (truth_of([]), found_of([[0, 0, np.nan, 5]], [0.5]), "finite"),
        (truth_of([]), found_of([[0, 0, 5, 5]], [np.nan]), "scores are not finite"),
        (truth_of([]), found_of([[5, 0, 0, 5]], [0.5]), "xyxy"),
        (truth_of([]), found_of([[0, 0, 5, 5]], [0.5, 0.4]), "boxes, scores and labels"),
    ],
)
def test_bad_input_names_the_image(truth: GroundTruth, found: Detections, message: str) -> None:
    with pytest.raises(MetricsError, match=f"'picture'.*{message}"):
        VocEvaluator(("a",)).add("picture", truth, found)


def test_an_image_cannot_be_added_twice() -> None:
    evaluator = evaluate({"x": (truth_of([]), found_of([], []))})
    with pytest.raises(MetricsError, match="twice"):
        evaluator.add("x", truth_of([]), found_of([], []))


def test_hits_names_the_object_of_every_detection_in_the_order_given() -> None:
    truth = truth_of([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], labels=[0, 1, 0], ignore=[False, False, True])
    boxes = [[0, 0, 10, 9], [0, 0, 10, 10], [20, 0, 30, 10], [20, 1, 30, 10], [40, 0, 50, 9], [70, 0, 80, 10]]
    found = found_of(boxes, [0.5, 0.9, 0.8, 0.7, 0.6, 0.4], labels=[0, 0, 0, 1, 0, 0])
    assert hits(truth, found, 0.5).tolist() == [FALSE_ALARM, 0, FALSE_ALARM, 1, NO_MATTER, FALSE_ALARM]
    assert hits(truth_of([]), found, 0.5).tolist() == [FALSE_ALARM] * 6
