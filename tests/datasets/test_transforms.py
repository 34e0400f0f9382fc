"""Augmentation: boxes stay inside and stay on their objects, chance comes from the generator alone."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.annotations import GroundTruth
from datasets.strict import SettingError, parse
from datasets.transforms import AugmentConfig, augment, flip_horizontally, letterbox_sample, occlude, rotate

PLAIN = AugmentConfig(hsv_share=0, grey=0)


def picture(rng: np.random.Generator, width: int, height: int, count: int) -> tuple[np.ndarray, GroundTruth]:
    """Black, with white rectangles as objects."""
    image = np.zeros((height, width, 3), np.uint8)
    boxes = []
    for _ in range(count):
        x1, y1 = int(rng.integers(0, width - 1)), int(rng.integers(0, height - 1))
        x2, y2 = int(rng.integers(x1 + 1, width + 1)), int(rng.integers(y1 + 1, height + 1))
        boxes.append((x1, y1, x2, y2))
        image[y1:y2, x1:x2] = 255
    labels = np.arange(count, dtype=np.int64) % 3
    return image, GroundTruth(np.array(boxes, np.float32).reshape(-1, 4), labels, np.zeros(count, bool))


def fetch_from(seed: int, smallest: int = 8):
    """A `fetch` over five pictures with sides from `smallest` to 200."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(smallest, 200, (5, 2)).tolist()
    return [picture(rng, width, height, int(rng.integers(0, 6))) for width, height in sizes].__getitem__


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    mosaic=st.sampled_from([0.0, 1.0]),
    anchor=st.sampled_from([0.0, 1.0]),
    h=st.integers(8, 150),
    w=st.integers(8, 150),
)
def test_boxes_stay_inside_the_canvas(seed: int, mosaic: float, anchor: float, h: int, w: int) -> None:
    config = AugmentConfig(mosaic=mosaic, anchor_sampling=anchor, focus=0.5, scale=(0.2, 3.0))
    result = augment(fetch_from(seed), seed % 5, np.random.default_rng(seed), config, h, w, count=5)
    assert result.image.shape == (h, w, 3) and result.image.dtype == np.uint8
    assert result.boxes.dtype == np.float32 and result.labels.dtype == np.int64 and result.ignore.dtype == bool
    assert len(result.boxes) == len(result.labels) == len(result.ignore)
    assert (result.boxes[:, :2] >= 0).all() and (result.boxes[:, 2:] <= (w, h)).all()
    assert (result.boxes[:, :2] < result.boxes[:, 2:]).all()


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10_000), mosaic=st.sampled_from([0.0, 1.0]))
def test_boxes_stay_on_their_objects(seed: int, mosaic: float) -> None:
    """Inside of a box (less a pixel of blur) everything is white, as it was in the picture."""
    config = PLAIN.model_copy(update={"mosaic": mosaic, "scale": (0.5, 2.0)})
    result = augment(fetch_from(seed, 64), seed % 5, np.random.default_rng(seed), config, 96, 128, count=5)
    for x1, y1, x2, y2 in result.boxes:
        zoom = 4  # pixels over which the largest enlargement (2 x 128 / 64) blurs
        rows = slice(int(np.ceil(y1)) + zoom, max(0, int(y2) - zoom))
        columns = slice(int(np.ceil(x1)) + zoom, max(0, int(x2) - zoom))
        inner = result.image[rows, columns]
        assert inner.size == 0 or inner.min() > 200


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_flip_is_an_involution(seed: int) -> None:
    image, truth = fetch_from(seed)(0)
    once = flip_horizontally(image, truth)
    twice = flip_horizontally(*once)
    assert (twice[0] == image).all() and np.allclose(twice[1].boxes, truth.boxes)
    assert (once[1].boxes[:, 0] < once[1].boxes[:, 2]).all()


def test_chance_comes_from_the_generator() -> None:
    for config in (AugmentConfig(mosaic=0.5), AugmentConfig(colour="albumentations")):
        results = [
            [augment(fetch_from(1), i, np.random.default_rng([3, i]), config, 64, 64, count=5) for i in order]
            for order in ((0, 1, 2), (2, 1, 0))
        ]
        for first, second in zip(results[0], reversed(results[1]), strict=True):
            assert (first.image == second.image).all() and (first.boxes == second.boxes).all()


def test_the_source_is_left_as_it_was() -> None:
    image, truth = fetch_from(2)(1)
    image.setflags(write=False)
    truth.boxes.setflags(write=False)
    before = truth.boxes.copy()
    for seed in range(20):
        augment(lambda i: (image, truth), 0, np.random.default_rng(seed), AugmentConfig(mosaic=0.5), 64, 64)
    assert (truth.boxes == before).all()


def test_anchor_sampling_reaches_the_target_size() -> None:
    image = np.zeros((300, 300, 3), np.uint8)
    truth = GroundTruth(np.array([[100, 100, 140, 140]], np.float32), np.zeros(1, np.int64), np.zeros(1, bool))
    config = AugmentConfig(anchor_sampling=1, target_size=(20, 20), anchor_zoom=(0.1, 9), aspect=0)
    for seed in range(20):
        result = augment(lambda i: (image, truth), 0, np.random.default_rng(seed), config, 100, 120)
        x1, y1, x2, y2 = result.boxes[0]
        assert abs((x2 - x1) - 20) < 0.5 and abs((y2 - y1) - 20) < 0.5 and not result.ignore[0]


def test_small_truncated_and_ignored_objects_are_ignored() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    boxes = np.array([[10, 10, 13, 13], [30, 30, 60, 60], [70, 70, 90, 90]], np.float32)
    truth = GroundTruth(boxes, np.zeros(3, np.int64), np.array([False, False, True]))
    config = AugmentConfig(min_box=4, scale=(1, 1), aspect=0, focus=0, flip=0)
    result = augment(lambda i: (image, truth), 0, np.random.default_rng(0), config, 100, 100)
    assert np.allclose(result.boxes, boxes) and result.ignore.tolist() == [True, False, True]
    zoomed = config.model_copy(update={"scale": (2.0, 2.0), "min_box": 0})
    for seed in range(30):
        result = augment(lambda i: (image, truth), 0, np.random.default_rng(seed), zoomed, 100, 100)
        for (x1, y1, x2, y2), ignore in zip(result.boxes, result.ignore, strict=True):
            if (x2 - x1) * (y2 - y1) < 0.3 * 36:
                assert ignore


def test_letterbox_keeps_everything() -> None:
    image, truth = np.full((50, 200, 3), 9, np.uint8), fetch_from(0)(0)[1]
    truth = GroundTruth(np.array([[0, 0, 200, 50], [3, 3, 5, 6]], np.float32), np.zeros(2, np.int64), np.zeros(2, bool))
    result = letterbox_sample(image, truth, 96, 100)
    assert np.allclose(result.boxes, truth.boxes / 2) and not result.ignore.any()
    assert (result.image[:25] == 9).all() and (result.image[25:] == 114).all()


def test_calm_and_checks() -> None:
    calm = AugmentConfig(mosaic=1, anchor_sampling=0.5, colour="albumentations").calm()
    assert calm.mosaic == calm.anchor_sampling == 0 and calm.colour == "none"
    for bad, message in (({"scale": [2, 1]}, "scale must be"), ({"flip": 2}, "flip is 2"), ({"hsv": [1, 0, 0]}, "hsv")):
        with pytest.raises(SettingError, match=message):
            parse(bad, AugmentConfig, "x")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), degrees=st.floats(-45, 45), axes=st.tuples(st.integers(8, 30), st.integers(8, 30)))
def test_a_turned_box_is_that_of_the_turned_ellipse(seed: int, degrees: float, axes: tuple[int, int]) -> None:
    """OpenCV draws the ellipse, NumPy looks where its pixels went."""
    middle = np.random.default_rng(seed).integers(60, 141, 2)
    image = np.zeros((200, 200, 3), np.uint8)
    cv2.ellipse(image, middle.tolist(), axes, 0, 0, 360, (255, 255, 255), -1)
    box = np.concatenate([middle - axes, np.add(middle, axes) + 1]).astype(np.float32)
    turned, truth = rotate(image, GroundTruth(box[None], np.zeros(1, np.int64), np.zeros(1, bool)), degrees, PLAIN)
    white = turned[..., 0] > 127
    white[:, [0, -1]] = white[[0, -1]] = False  # the border's pad may be brighter than black, never than the half
    rows, columns = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
    assert np.allclose(truth.boxes[0], (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1), atol=1.5)


@pytest.mark.parametrize("seed", range(40))
def test_what_hides_an_object_leaves_most_of_it(seed: int) -> None:
    """A white object on black: some of it goes, its middle stays, and nothing far from it changes."""
    rng = np.random.default_rng(seed)
    image = np.zeros((120, 160, 3), np.uint8)
    corner = rng.integers(0, (130, 90))
    box = np.concatenate([corner, corner + rng.integers(10, 30, 2)])
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = 255
    before = image.copy()
    occlude(image, box.astype(np.float32), rng)
    changed = (image != before).any(2)
    left = (image[y1:y2, x1:x2] == 255).mean()
    assert 0.4 < left and (left < 1 or changed[y1:y2, x1:x2].sum() == 0)
    assert (image[(y1 + y2) // 2, (x1 + x2) // 2] == 255).all()
    near = np.zeros_like(changed)
    reach_x, reach_y = int(0.5 * (x2 - x1)) + 1, int(0.5 * (y2 - y1)) + 1
    near[max(0, y1 - reach_y) : y2 + reach_y, max(0, x1 - reach_x) : x2 + reach_x] = True
    assert not (changed & ~near).any()


def test_a_share_of_objects_is_hidden() -> None:
    """In a picture of noise every cover differs from what it covers; small and ignored objects are left alone."""
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 256, (100, 200, 3), dtype=np.uint8)
    boxes = np.array([[10, 10, 40, 50], [100, 20, 140, 60], [60, 70, 66, 76]], np.float32)
    truth = GroundTruth(boxes, np.zeros(3, np.int64), np.array([False, True, False]))
    plain = AugmentConfig(scale=(1, 1), aspect=0, focus=0, flip=0, hsv=(0, 0, 0), grey=0, min_box=0)
    hidden = augment(lambda _: (picture, truth), 0, np.random.default_rng(0), plain.model_copy(update={"occlude": 1.0}), 100, 200)
    changed = (hidden.image != picture).any(2)
    assert changed[10:50, 10:40].mean() > 0.04 and not changed[:, 75:].any() and not changed[70:76, 60:66].any()
    assert np.array_equal(hidden.boxes, boxes)


def test_what_a_turn_takes_out_of_view_is_gone() -> None:
    boxes = np.array([[0, 0, 10, 10], [95, 45, 105, 55]], np.float32)
    truth = GroundTruth(boxes, np.array([1, 2]), np.zeros(2, bool))
    turned = rotate(np.zeros((100, 200, 3), np.uint8), truth, -45, PLAIN)[1]
    assert turned.labels.tolist() == [2] and np.allclose(turned.boxes, boxes[1:])


def test_what_shines_through_is_ignored() -> None:
    """Both pictures are seen by their weights, the objects of the one in front are learnt."""
    config = PLAIN.model_copy(update={"mixup": 1.0, "scale": (1, 1), "aspect": 0, "focus": 0, "flip": 0})
    front, behind = np.full((64, 64, 3), 200, np.uint8), np.zeros((64, 64, 3), np.uint8)
    truths = [GroundTruth(np.array([[x, 8, x + 9, 30]], np.float32), np.array([x]), np.zeros(1, bool)) for x in (4, 40)]
    behinds = 0
    for seed in range(40):
        result = augment(lambda i: ((front, behind)[i], truths[i]), 0, np.random.default_rng(seed), config, 64, 64, count=2)
        assert result.ignore.tolist() == [False, True] and result.labels[0] == 4
        if result.labels[1] == 40:
            behinds += 1
            assert 0.55 * 200 - 1 <= result.image[0, 0, 0] <= 0.9 * 200 + 1
    assert 0 < behinds < 40


def test_the_last_epochs_are_calm() -> None:
    calm = AugmentConfig(mosaic=1, mixup=1, rotate=45, rotate_share=1, occlude=1, colour="albumentations").calm()
    image = np.full((40, 40, 3), 9, np.uint8)
    result = augment(lambda i: (image, GroundTruth.empty()), 0, np.random.default_rng(0), calm, 40, 40, count=1)
    assert calm.mosaic == calm.mixup == calm.rotate == calm.occlude == 0 and result.image.shape == (40, 40, 3)
