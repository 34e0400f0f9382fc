"""Drawing: nothing outside of the picture, the input untouched, lines where the boxes are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.annotations import GroundTruth
from detection.detections import Detections
from detection.draw import TRUTH_COLOR, class_color, draw_detections, draw_truth, line_width, tile_pictures


def found(boxes, scores=None, labels=None) -> Detections:
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    scores = np.linspace(0.9, 0.3, len(boxes), dtype=np.float32) if scores is None else np.asarray(scores, np.float32)
    return Detections(boxes, scores, np.zeros(len(boxes), np.int64) if labels is None else np.asarray(labels, np.int64))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**32 - 1))
def test_any_box_on_any_picture(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-30, 120, (5, 2))
    boxes = np.hstack([corner, corner + rng.uniform(0, 150, (5, 2))])
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    before = image.copy()
    canvas = draw_detections(image, found(boxes, labels=rng.integers(0, 4, 5)), ("a", "b"))
    assert canvas.shape == image.shape and canvas.dtype == np.uint8
    assert np.array_equal(image, before)


def test_lines_lie_on_the_edges_of_the_box() -> None:
    canvas = draw_detections(np.zeros((60, 80, 3), np.uint8), found([[20, 20, 60, 50]]), ("a",))
    color = class_color(0)
    for y, x in ((20, 40), (49, 40), (35, 20), (35, 59)):  # half-open: the last row is 49, the last column 59
        assert tuple(canvas[y, x]) == color
    assert not canvas[30:40, 30:50].any()
    assert not canvas[51:, :].any() and not canvas[:, 61:].any()


def test_boxes_of_the_original_are_scaled_to_a_shrunk_copy() -> None:
    small = np.zeros((50, 50, 3), np.uint8)
    direct = draw_detections(small, found([[10, 10, 40, 40]]), ("a",))
    scaled = draw_detections(small, found([[40, 20, 160, 80]]), ("a",), size=(200, 100))
    assert np.array_equal(direct, scaled)


def test_min_score_hides_boxes() -> None:
    image = np.zeros((50, 50, 3), np.uint8)
    assert not draw_detections(image, found([[5, 5, 40, 40]], [0.2]), ("a",), min_score=0.3).any()
    assert draw_detections(image, found([[5, 5, 40, 40]], [0.3]), ("a",), min_score=0.3).any()


def test_truth_and_ignored_truth_differ() -> None:
    truth = GroundTruth(np.array([[5, 5, 40, 40]], np.float32), np.zeros(1, np.int64), np.zeros(1, bool))
    image = np.zeros((50, 50, 3), np.uint8)
    plain = draw_truth(image, truth)
    assert tuple(plain[5, 20]) == TRUTH_COLOR
    assert not np.array_equal(plain, draw_truth(image, truth._replace(ignore=np.ones(1, bool))))


def test_colours_differ_and_lines_grow() -> None:
    assert len({class_color(label) for label in range(80)}) == 80
    assert line_width(96, 128) == 1 and line_width(1000, 1000) == 3


def test_tiles_keep_every_picture() -> None:
    pictures = [np.full((10 + i, 20, 3), 50 + i, np.uint8) for i in range(5)]
    sheet = tile_pictures(pictures, 2)
    assert sheet.shape == (3 * 14 + 2 * 4, 2 * 20 + 4, 3)
    assert all((sheet == 50 + i).all(axis=2).sum() == (10 + i) * 20 for i in range(5))
    with pytest.raises(ValueError, match="nothing to tile"):
        tile_pictures([], 2)


def test_wrong_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        draw_detections(np.zeros((5, 5), np.uint8), found([]))
