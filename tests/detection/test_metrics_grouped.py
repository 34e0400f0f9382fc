"""Average precision by counters: C equals Python to the bit, and both are what the sorted list says where scores differ."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.annotations import GroundTruth
from detection.detections import Detections
from detection.metrics.common import MetricsError
from detection.metrics.grouped import Q30, GroupedAp, ap_grouped, place_truth
from detection.metrics.voc import VocEvaluator
from firmware.host import HostModel, TessError
from firmware.host_ap import HostAp, place
from tests.detection import small_export

SIDE = 256  # few places, so that boxes meet


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    first = rng.integers(0, SIDE - 1, (count, 2)) // 8 * 8
    return np.concatenate([first, first + 8 * rng.integers(1, 12, (count, 2))], axis=1)


def random_picture(rng: np.random.Generator, n_classes: int, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(detections, truth); a part of the detections lies near truth."""
    n_truth = int(rng.integers(0, 6))
    truth = np.column_stack(
        [random_boxes(rng, n_truth), rng.integers(0, n_classes, n_truth), rng.random(n_truth) < 0.2]
    )
    near = truth[rng.integers(0, n_truth, rng.integers(0, 8))] if n_truth else np.zeros((0, 6), np.int64)
    near = np.column_stack([near[:, :2], near[:, 2:4] + 8 * rng.integers(0, 3, (len(near), 2)), near[:, 4]])
    far = random_boxes(rng, int(rng.integers(0, 5)))
    far = np.column_stack([far, rng.integers(0, n_classes, len(far))])
    found = np.concatenate([near, far])
    order = np.sort(rng.choice(scores, len(found)))[::-1]
    found = found[rng.permutation(len(found))]
    return np.column_stack([found[:, :4], order, found[:, 4]]).astype(np.int32), truth.astype(np.int32)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 40), st.integers(1, 32768))
def test_c_equals_python_to_the_bit(seed: int, n_classes: int, n_levels: int, iou: int) -> None:
    rng = np.random.default_rng(seed)
    levels = np.sort(rng.choice(32769, n_levels, replace=False))
    scores = rng.integers(levels[0], 32769, 12)
    ours, theirs = GroupedAp(levels, n_classes, iou), HostAp(levels, n_classes, iou)
    for _ in range(int(rng.integers(0, 6))):
        picture = random_picture(rng, n_classes, scores)
        ours.add(*picture)
        theirs.add(*picture)
    assert [ours.average_precision(c) for c in range(n_classes)] == [theirs.average_precision(c) for c in range(n_classes)]
    assert ours.mean() == theirs.mean()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_distinct_scores_give_the_sorted_ap(seed: int, n_classes: int) -> None:
    """With every score a level of its own and used once, one step is one detection: VOC's area, matching included."""
    rng = np.random.default_rng(seed)
    unused = rng.permutation(32768) + 1
    sorted_ap, grouped = VocEvaluator([f"c{c}" for c in range(n_classes)]), GroupedAp(range(1, 32769), n_classes)
    for i in range(4):
        found, truth = random_picture(rng, n_classes, unused)
        found[:, 4], unused = np.sort(unused[: len(found)])[::-1], unused[len(found) :]
        grouped.add(found, truth)
        boxes, corners = found[:, :4].astype(np.float32), truth[:, :4].astype(np.float32)
        sorted_ap.add(
            f"{i}",
            GroundTruth(corners, truth[:, 4].astype(np.int64), truth[:, 5].astype(bool)),
            Detections(boxes, found[:, 4].astype(np.float32) / 32768, found[:, 5].astype(np.int64)),
        )
    expected = sorted_ap.result()
    mean = grouped.mean()
    if mean is None:
        assert np.isnan(expected.values["voc_ap50_area"])
    else:
        assert mean / Q30 == pytest.approx(expected.values["voc_ap50_area"], abs=1e-8)


def exact_area(hits: list[int], misses: list[int], n_objects: int) -> Fraction:
    """The definition, from the highest score down, in fractions."""
    points, found, total = [], 0, 0
    for hit, miss in zip(reversed(hits), reversed(misses), strict=True):
        found, total = found + hit, total + hit + miss
        points.append((hit, Fraction(found, total) if total else Fraction(0)))
    return sum((hit * max(p for _, p in points[i:]) for i, (hit, _) in enumerate(points)), Fraction(0)) / n_objects


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20), st.integers(0, 9))
def test_area_is_the_definition(counts: list[tuple[int, int]], missed: int) -> None:
    hits, misses = ([pair[i] for pair in counts] for i in (0, 1))
    n_objects = sum(hits) + missed
    ap = ap_grouped(hits, misses, n_objects)
    if n_objects == 0:
        assert ap is None
    else:
        assert abs(Fraction(ap, Q30) - exact_area(hits, misses, n_objects)) <= Fraction(2, Q30)


def test_equal_scores_are_one_step_whatever_the_order() -> None:
    """A hit and a false alarm of one score: precision 1/2, where a sorted list would say 1 or 1/2 by the pictures' names."""
    truth = np.array([[0, 0, 16, 16, 0, 0]], np.int32)
    hit = np.array([[0, 0, 16, 16, 500, 0]], np.int32)
    miss = np.array([[100, 100, 116, 116, 500, 0]], np.int32)
    for pictures in ([(hit, truth), (miss, truth[:0])], [(miss, truth[:0]), (hit, truth)]):
        for ap in (GroupedAp([100, 500], 1), HostAp([100, 500], 1)):
            for picture in pictures:
                ap.add(*picture)
            assert ap.average_precision(0) == Q30 // 2


@pytest.mark.parametrize("maker", [GroupedAp, HostAp])
def test_an_overlap_of_just_the_threshold_is_a_hit_and_equal_overlaps_go_to_the_first(maker: type) -> None:
    half = maker([1], 1)
    half.add(np.array([[0, 0, 16, 16, 500, 0]], np.int32), np.array([[0, 0, 16, 8, 0, 0]], np.int32))
    assert half.average_precision(0) == Q30
    twins = maker([1], 1)
    truth = np.array([[0, 0, 16, 8, 0, 1], [0, 8, 16, 16, 0, 0]], np.int32)  # the first one is ignored
    twins.add(np.array([[0, 0, 16, 16, 500, 0]], np.int32), truth)
    assert twins.average_precision(0) == 0


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_truth_is_placed_alike(data: st.DataObject) -> None:
    size = tuple(data.draw(st.integers(1, 65535)) for _ in range(2))
    content = tuple(data.draw(st.integers(1, 2047)) for _ in range(2))
    x, y = (sorted(data.draw(st.lists(st.integers(-100, 20 * side), min_size=2, max_size=2))) for side in size)
    corners = (x[0], y[0], x[1], y[1])
    truth = GroundTruth(np.array([corners], np.float64) / 16, np.zeros(1, np.int64), np.zeros(1, bool))
    placed = place_truth(truth, size, content)[0, :4].tolist()
    assert placed == list(place(corners, size, content))
    assert 0 <= placed[0] < placed[2] <= 16 * content[0] and 0 <= placed[1] < placed[3] <= 16 * content[1]


def test_score_levels_are_the_heads() -> None:
    small = small_export.build()
    tables = np.concatenate([level.objectness_table for level in small.spec.levels])
    above = tables[tables > small.spec.score_threshold]
    levels = HostModel(small.tess).score_levels()
    assert levels.tolist() == sorted({small.spec.score_threshold, *above.tolist()})
    assert len(levels) > 100


GOOD_TRUTH = [0, 0, 16, 16, 0, 0]


@pytest.mark.parametrize(
    ("box", "truth"),
    [
        ([0, 0, 16, 16, 500, 1], GOOD_TRUTH),  # no such class
        ([0, 0, 16, 16, 99, 0], GOOD_TRUTH),  # below the first level
        ([16, 0, 16, 16, 500, 0], GOOD_TRUTH),  # empty box
        ([0, 0, 16, 16, 500, 0], [0, 0, 16, 16, 1, 0]),
        ([0, 0, 16, 16, 500, 0], [0, 16, 16, 16, 0, 0]),
        ([0, 0, 16, 16, 500, 0], [-1, 0, 16, 16, 0, 0]),
    ],
)
def test_c_refuses_a_bad_picture_and_counts_nothing(box: list[int], truth: list[int]) -> None:
    ap = HostAp([100, 500], 1)
    with pytest.raises(TessError):
        ap.add(np.array([box], np.int32), np.array([truth], np.int32))
    assert ap.average_precision(0) is None
    ap.add(np.array([[0, 0, 16, 16, 500, 0]], np.int32), np.array([GOOD_TRUTH], np.int32))
    assert ap.average_precision(0) == Q30


def test_boxes_must_come_best_first() -> None:
    boxes = np.array([[0, 0, 16, 16, 400, 0], [0, 0, 16, 16, 500, 0]], np.int32)
    none = np.zeros((0, 6), np.int32)
    with pytest.raises(TessError):
        HostAp([100], 1).add(boxes, none)
    with pytest.raises(MetricsError):
        GroupedAp([100], 1).add(boxes, none)


@pytest.mark.parametrize(("levels", "n_classes", "iou"), [([5, 5], 1, 1), ([], 1, 1), ([1], 0, 1), ([1], 1, 0), ([1], 1, 32769)])
def test_c_refuses_bad_settings(levels: list[int], n_classes: int, iou: int) -> None:
    with pytest.raises(TessError):
        HostAp(levels, n_classes, iou)
