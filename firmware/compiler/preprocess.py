"""From a picture of any size to the network's input: the letterbox, exact in integers.

The picture is shrunk or enlarged by the exact mean over areas, put at the top left, and the rest filled with grey. The C
runtime does the same arithmetic row by row; both must agree to the byte.
"""

from typing import NamedTuple

import numpy as np

GREY = 114  # of the area that the picture does not cover
MAX_PIXELS = 16_000_000  # of a picture: 255 * width * height + half must fit in 32 bits


class PreprocessError(ValueError):
    """A picture that cannot be an input."""


class ContentSize(NamedTuple):
    """Columns and rows at the top left of the network's input that the picture covers."""

    width: int
    height: int


def content_size(source: tuple[int, int], network: tuple[int, int]) -> ContentSize:
    """Where the letterbox puts a picture; both arguments are (width, height). Sides are rounded, halves up, at least 1."""
    (source_w, source_h), (network_w, network_h) = source, network
    if source_w * network_h >= source_h * network_w:
        return ContentSize(network_w, max(1, (2 * source_h * network_w + source_w) // (2 * source_w)))
    return ContentSize(max(1, (2 * source_w * network_h + source_h) // (2 * source_h)), network_h)


def letterbox(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 (h, w, 3) RGB -> uint8 (height, width, 3).

    Along each axis, output i covers [i * source, (i + 1) * source) and source pixel j [j * content, (j + 1) * content);
    the value is the sum of overlap_x * overlap_y * pixel over source_w * source_h, rounded, halves up. A picture that has
    the content's size already is copied.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise PreprocessError(f"picture is {image.dtype} {image.shape}, expected uint8 (height, width, 3)")
    source_h, source_w, channels = image.shape
    if source_w * source_h > MAX_PIXELS:
        raise PreprocessError(f"picture of {source_w}x{source_h} has more than {MAX_PIXELS:,} pixels; shrink it first")
    content = content_size((source_w, source_h), (width, height))
    out = np.full((height, width, channels), GREY, np.uint8)
    if (content.width, content.height) == (source_w, source_h):
        out[:source_h, :source_w] = image
        return out
    rows = _overlap_sums(image.reshape(source_h, -1), content.height)  # (content_h, source_w * 3)
    columns = np.ascontiguousarray(rows.reshape(-1, source_w, channels).transpose(1, 0, 2)).reshape(source_w, -1)
    sums = _overlap_sums(columns, content.width)  # (content_w, content_h * 3)
    area = source_w * source_h
    means = (sums + np.uint32(area // 2)) // np.uint32(area)
    out[: content.height, : content.width] = means.reshape(content.width, content.height, channels).transpose(1, 0, 2)
    return out


def to_rgb565(image: np.ndarray) -> np.ndarray:
    """uint8 (h, w, 3) RGB -> uint16 (h, w), as a camera cuts colours off."""
    red, green, blue = np.moveaxis(image.astype(np.uint16), 2, 0)
    return red >> 3 << 11 | green >> 2 << 5 | blue >> 3


def from_rgb565(pixels: np.ndarray) -> np.ndarray:
    """uint16 (h, w) -> uint8 (h, w, 3) RGB as the runtime widens it: the highest bits again below the lowest ones."""
    red, green, blue = pixels >> 11, pixels >> 5 & 63, pixels & 31
    return np.stack([red << 3 | red >> 2, green << 2 | green >> 4, blue << 3 | blue >> 2], axis=2).astype(np.uint8)


def to_int8(frame: np.ndarray) -> np.ndarray:
    """uint8 - 128, the network's own numbers."""
    return (frame ^ 0x80).view(np.int8)


def _overlap_sums(values: np.ndarray, count: int) -> np.ndarray:
    """Sum over axis 0 of overlap(i, j) * values[j] for `count` outputs i: (n, m) -> uint32 (count, m).

    Whole pixels from the first that the interval touches, minus the part of that one before it, plus the part of the last.
    Everything is modulo 2**32, which the result is below.
    """
    size = len(values)
    first, part = np.divmod(np.arange(count + 1, dtype=np.int64) * size, count)  # edges: pixel, and units of it before
    whole = np.empty((count, values.shape[1]), np.uint32)
    for i in range(count):  # much faster than reduceat
        np.add.reduce(values[first[i] : first[i + 1]], axis=0, dtype=np.uint32, out=whole[i])
    edges = values[np.minimum(first, size - 1)] * part.astype(np.uint32)[:, None]
    whole *= np.uint32(count)
    whole -= edges[:-1]
    whole += edges[1:]
    return whole
