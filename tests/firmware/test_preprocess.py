"""The letterbox against exact fractions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.compiler.preprocess import GREY, PreprocessError, content_size, from_rgb565, letterbox, to_int8, to_rgb565
from firmware.host import HostModel
from tests.firmware.test_device import make_tess

sides = st.integers(1, 40)


def slow_letterbox(image: np.ndarray, height: int, width: int) -> np.ndarray:
    source_h, source_w, _ = image.shape
    content = content_size((source_w, source_h), (width, height))
    out = np.full((height, width, 3), GREY, np.uint8)
    x_overlaps, y_overlaps = _overlaps(source_w, content.width), _overlaps(source_h, content.height)
    for y in range(content.height):
        for x in range(content.width):
            mean = sum(
                Fraction(wy * wx, source_w * source_h) * int(image[j, i, 1]) for j, wy in y_overlaps[y] for i, wx in x_overlaps[x]
            )
            out[y, x, 1] = (mean + Fraction(1, 2)).__floor__()
    return out[..., 1]


def _overlaps(source: int, content: int) -> list[list[tuple[int, int]]]:
    """For each output the (source pixel, overlap in 1/content pixel) that it covers, by intersecting intervals."""
    found = []
    for i in range(content):
        parts = [(j, min((i + 1) * source, (j + 1) * content) - max(i * source, j * content)) for j in range(source)]
        found.append([(j, overlap) for j, overlap in parts if overlap > 0])
        assert sum(overlap for _, overlap in found[-1]) == source
    return found


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 14), st.integers(1, 14), st.integers(1, 14), st.integers(1, 14), st.integers(0, 2**32 - 1))
def test_letterbox_is_the_exact_area_mean(source_h, source_w, height, width, seed):
    image = np.random.default_rng(seed).integers(0, 256, (source_h, source_w, 3), dtype=np.uint8)
    found = letterbox(image, height, width)
    assert found.shape == (height, width, 3) and found.dtype == np.uint8
    np.testing.assert_array_equal(found[..., 1], slow_letterbox(image, height, width))


@given(sides, sides, sides, sides)
def test_content_fills_one_side_keeps_the_shape_and_never_sticks_out(source_w, source_h, width, height):
    content = content_size((source_w, source_h), (width, height))
    assert content.width == width or content.height == height
    assert 1 <= content.width <= width and 1 <= content.height <= height
    scale = min(Fraction(width, source_w), Fraction(height, source_h))
    assert abs(content.width - source_w * scale) <= Fraction(1, 2) or content.width == 1
    assert abs(content.height - source_h * scale) <= Fraction(1, 2) or content.height == 1


@given(sides, sides, st.integers(0, 255), sides, sides)
def test_a_flat_picture_stays_flat_and_the_rest_is_grey(source_w, source_h, value, width, height):
    found = letterbox(np.full((source_h, source_w, 3), value, np.uint8), height, width)
    content = content_size((source_w, source_h), (width, height))
    assert (found[: content.height, : content.width] == value).all()
    assert (found[content.height :] == GREY).all() and (found[:, content.width :] == GREY).all()


def test_a_picture_of_the_right_size_is_copied():
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(letterbox(image, 24, 32), image)
    np.testing.assert_array_equal(letterbox(image, 30, 32)[:24], image)


def test_whole_factors_are_plain_means_and_repetition():
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    means = (image.reshape(8, 2, 12, 2, 3).astype(int).sum((1, 3)) + 2) // 4
    np.testing.assert_array_equal(letterbox(image, 8, 12), means)
    np.testing.assert_array_equal(letterbox(image, 48, 72), image.repeat(3, 0).repeat(3, 1))


def test_the_largest_white_picture_does_not_overflow():
    image = np.full((4000, 4000, 3), 255, np.uint8)
    assert (letterbox(image, 7, 7) == 255).all()


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 4), np.uint8), "expected uint8"),
        (np.zeros((4, 4, 3), np.float32), "expected uint8"),
        (np.zeros((0, 4, 3), np.uint8), "expected uint8"),
        (np.broadcast_to(np.uint8(0), (4001, 4000, 3)), "shrink it first"),
    ],
)
def test_what_is_no_picture_is_refused(image, words):
    with pytest.raises(PreprocessError, match=words):
        letterbox(image, 8, 8)


def test_rgb565_is_widened_as_in_c():
    """All colours there are; and what was widened is cut to the same again."""
    pixels = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    model = HostModel(make_tess("stream"))
    height, width, _ = model.input_shape
    for tile in (pixels[y : y + height, x : x + width] for y in range(0, 256, height) for x in range(0, 256, width)):
        lines = np.ascontiguousarray(tile.astype("<u2")).view(np.uint8).reshape(*tile.shape, 2)
        assert np.array_equal(model.network_frame(lines, "rgb565_le"), letterbox(from_rgb565(tile), height, width))
    assert np.array_equal(to_rgb565(from_rgb565(pixels)), pixels)
    assert to_rgb565(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)).tolist() == [[0xF800, 0x07E0, 0x001F]]


def test_to_int8():
    assert to_int8(np.array([0, 127, 128, 255], np.uint8)).tolist() == [-128, -1, 0, 127]
