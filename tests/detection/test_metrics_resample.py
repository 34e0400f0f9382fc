"""Bootstrap over images: a weight is that many copies of the image, for every protocol; intervals hold what they promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.annotations import GroundTruth
from detection.detections import Detections
from detection.metrics.coco import CocoEvaluator
from detection.metrics.resample import bootstrap, image_weights, interval, mean_of_classes
from detection.metrics.sizes import SizeEvaluator
from detection.metrics.voc import VocEvaluator
from detection.metrics.wider import SETTINGS, Faces, WiderEvaluator

CLASSES = ("a", "b")
IMAGES = 5


def random_pair(rng: np.random.Generator) -> tuple[GroundTruth, Detections]:
    """Few objects in a narrow place, so that hits, doubles, misses, empty pictures and ties between pictures all occur.

    Scores differ within a picture: copies would otherwise be ranked copy by copy, and a weight detection by detection.
    """

    def boxes(n: int) -> np.ndarray:
        corner = rng.integers(0, 30, (n, 2))
        return np.hstack([corner, corner + rng.integers(5, 40, (n, 2))]).astype(np.float32)

    n, m = rng.integers(0, 4), rng.integers(0, 8)
    truth = GroundTruth(boxes(n), rng.integers(0, 2, n), rng.random(n) < 0.2)
    near = np.concatenate([truth.boxes[rng.random(n) < 0.7], boxes(m)])
    labels = rng.integers(0, 2, len(near))
    return truth, Detections(near, -np.sort(-rng.permutation(16)[: len(near)] / 16).astype(np.float32), labels)


def copies(weights: np.ndarray) -> list[tuple[int, str]]:
    """(image, name) of every copy; sorted names keep the images' order."""
    return [(i, f"e/{i}-{copy}") for i, count in enumerate(weights) for copy in range(count)]


@pytest.mark.parametrize("kind", ["voc", "coco", "sizes"])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_weight_is_that_many_copies(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = [random_pair(rng) for _ in range(IMAGES)]
    weights = rng.integers(0, 4, (1, IMAGES))
    names = {name for row in [*weights, np.ones(IMAGES, int)] for _, name in copies(row)}
    make = {
        "voc": lambda: VocEvaluator(CLASSES),
        "coco": lambda: CocoEvaluator(CLASSES),
        "sizes": lambda: SizeEvaluator(CLASSES, dict.fromkeys(names, 1.0)),
    }[kind]
    evaluator = make()
    for i, name in copies(np.ones(IMAGES, int)):
        evaluator.add(name, *pairs[i])
    for row, weighted in enumerate(weights):
        judge = make()
        for i, name in copies(weighted):
            judge.add(name, *pairs[i])
        expected = judge.result().values
        for value, resampled in evaluator.resampled(weights).items():
            assert resampled[row] == pytest.approx(expected[value], abs=1e-12, nan_ok=True)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_weight_is_that_many_copies_of_wider_images(seed: int) -> None:
    """Two further images hold the extremes of all scores and always count once: the stretch stays what it was."""
    rng = np.random.default_rng(seed)
    faces, found = [], []
    for score in [1.0, 0.0, *[None] * IMAGES]:
        truth, detections = random_pair(rng)
        faces.append(Faces(truth.boxes.astype(np.float64), {s: rng.random(len(truth.boxes)) < 0.6 for s in SETTINGS}))
        extreme = Detections(np.array([[0, 0, 9, 9]], np.float32), np.array([score], np.float32), np.zeros(1, np.int64))
        found.append(detections if score is None else extreme)
    weights = np.hstack([np.ones((2, 2), int), rng.integers(0, 4, (2, IMAGES))])

    def evaluate(row: np.ndarray) -> WiderEvaluator:
        evaluator = WiderEvaluator({name: faces[i] for i, name in copies(row)}, few_faces=2)
        for i, name in copies(row):
            evaluator.add(name, GroundTruth.empty(), found[i])
        return evaluator

    resampled = evaluate(np.ones(len(faces), int)).resampled(weights)
    for row, weighted in enumerate(weights):
        expected = evaluate(weighted).result().values
        for name in SETTINGS:  # the subset has a stretch of its own, whose extremes may drop out
            assert resampled[f"wider_{name}"][row] == pytest.approx(expected[f"wider_{name}"], abs=1e-12, nan_ok=True)


def test_bootstrap_is_the_same_every_time_and_paired() -> None:
    rng = np.random.default_rng(0)
    pairs = [random_pair(rng) for _ in range(30)]

    def run() -> np.ndarray:
        evaluator = VocEvaluator(CLASSES)
        for i, pair in enumerate(pairs):
            evaluator.add(f"{i:02d}", *pair)
        return bootstrap([evaluator], len(pairs), 250)["voc_ap50_area"]

    first = run()
    assert first.shape == (250,) and np.array_equal(first, run())
    assert interval(run() - first) == (0.0, 0.0)
    assert first.std() > 0.01


def test_weights_are_draws_with_replacement() -> None:
    weights = image_weights(40, 2000)
    assert (weights.sum(axis=1) == 40).all()
    assert weights.mean() == 1.0 and weights.var() == pytest.approx(39 / 40, rel=0.03)  # binomial(40, 1 / 40)
    assert (image_weights(40, 2000) == weights).all() and not (image_weights(40, 2000, seed=1) == weights).all()


def test_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Pictures with one object each, found with probability .6: AP is the share that was found. 95 % of intervals hold it."""
    rng = np.random.default_rng(1)
    truth = GroundTruth(np.array([[0, 0, 9, 9]], np.float32), np.zeros(1, np.int64), np.zeros(1, bool))
    hit = Detections(truth.boxes, np.ones(1, np.float32), truth.labels)
    miss = Detections(truth.boxes[:0], np.ones(0, np.float32), truth.labels[:0])
    inside = 0
    for _ in range(100):
        evaluator = VocEvaluator(("a",), eleven_points=False)
        for i, found in enumerate(rng.random(60) < 0.6):
            evaluator.add(f"{i:02d}", truth, hit if found else miss)
        low, high = interval(bootstrap([evaluator], 60, 100)["voc_ap50_area"])
        inside += low <= 0.6 <= high
    assert 88 <= inside <= 99


def test_a_class_that_a_resample_lacks_is_left_out_of_its_mean() -> None:
    values = {"a": np.array([0.5, np.nan, np.nan]), "b": np.array([1.0, 0.25, np.nan])}
    assert mean_of_classes(values, 3) == pytest.approx([0.75, 0.25, np.nan], nan_ok=True)
    assert np.isnan(mean_of_classes({}, 2)).all()
    assert interval(np.array([np.nan, 1.0])) == (1.0, 1.0)
    assert np.isnan(interval(np.array([np.nan]))).all()
