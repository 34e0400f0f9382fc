"""Augmentation of one training sample: numpy and OpenCV only, about a millisecond, all chance from the `rng` passed in.

Every crop, zoom and mosaic is one idea: a rectangle of a source picture is resized straight into a rectangle of the
canvas (`_paste`). Boxes follow the mapping that was really applied, after rounding to whole pixels, so they stay exact.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import cv2
import numpy as np
from pydantic import Field, model_validator

from datasets.annotations import GroundTruth
from datasets.colour import jitter_colour
from datasets.strict import StrictModel

Fetch = Callable[[int], tuple[np.ndarray, GroundTruth]]
Range = tuple[float, float]


class AugmentConfig(StrictModel):
    """How much of what. Shares are probabilities; ranges are drawn log-uniformly; px are network pixels."""

    mosaic: float = Field(0.0, ge=0, le=1)  # share of samples made of four pictures
    mosaic_scale: Range = (0.4, 1.0)  # zoom of each, as in `scale`
    scale: Range = (0.6, 1.6)  # zoom; 1 = the picture just fits the training crop
    aspect: float = Field(0.1, ge=0, lt=0.5)  # width : height changes by up to this share
    focus: float = Field(0.5, ge=0, le=1)  # share of crops that are laid round an object
    anchor_sampling: float = Field(0.0, ge=0, le=1)  # share of crops that zoom one object to a size from target_size
    target_size: Range = (10.0, 220.0)  # px, square root of the object's area
    anchor_zoom: Range = (0.42, 2.6)  # limits of that zoom, network pixels per picture pixel
    flip: float = Field(0.5, ge=0, le=1)
    rotate: float = Field(0.0, ge=0, le=45)  # degrees, largest turn to either side
    rotate_share: float = Field(0.3, ge=0, le=1)
    occlude: float = Field(0.0, ge=0, le=1)  # share of objects one side of which is hidden by something else in the picture
    mixup: float = Field(0.0, ge=0, le=1)  # share of samples through which another picture shines
    hsv: tuple[float, float, float] = (0.015, 0.5, 0.4)  # largest change: hue (of a turn), saturation, value (shares)
    hsv_share: float = Field(0.8, ge=0, le=1)
    grey: float = Field(0.05, ge=0, le=1)
    colour: Literal["none", "albumentations"] = "none"  # more: contrast, blur, noise, compression
    min_box: float = Field(4.0, ge=0)  # px, square root of the visible area; smaller objects are ignored
    min_visible: float = Field(0.3, ge=0, le=1)  # share of an object's area; less is ignored
    pad: int = Field(114, ge=0, le=255)

    @model_validator(mode="after")
    def _check(self) -> "AugmentConfig":
        for name in ("mosaic_scale", "scale", "target_size", "anchor_zoom"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be [low, high] with 0 < low <= high, is [{low:g}, {high:g}]")
        hue, saturation, value = self.hsv
        if not (0 <= hue <= 0.5 and 0 <= saturation <= 1 and 0 <= value <= 1):
            raise ValueError(f"hsv must lie in 0..0.5, 0..1, 0..1, is {self.hsv}")
        return self

    def calm(self) -> "AugmentConfig":
        """For the last epochs: the same crops without mosaic, mixup, turns, occlusion, anchor sampling and extra colours."""
        off = {"mosaic": 0.0, "mixup": 0.0, "rotate": 0.0, "occlude": 0.0, "anchor_sampling": 0.0, "grey": 0.0, "colour": "none"}
        return self.model_copy(update=off)


_MIXUP_WEIGHT = (0.55, 0.9)  # of the picture that stays in front
_OCCLUDED = (0.15, 0.45)  # of an object's height or width
_OCCLUDED_FROM = 8.0  # px, shorter side of an object: smaller ones have little to spare
_ALL_BOXES = AugmentConfig(min_box=0, min_visible=0)


class Augmented(NamedTuple):
    """A training sample in network pixels."""

    image: np.ndarray  # uint8 (h, w, 3) RGB
    boxes: np.ndarray  # (n, 4) float32 xyxy, inside the picture
    labels: np.ndarray  # (n,) int64
    ignore: np.ndarray  # (n,) bool


class _Placement(NamedTuple):
    """Wanted mapping: network = source * zoom + offset, drawn inside region (x1, y1, x2, y2) only."""

    zoom: tuple[float, float]
    offset: tuple[float, float]
    region: tuple[int, int, int, int]


def augment(
    fetch: Fetch, index: int, rng: np.random.Generator, settings: AugmentConfig, h: int, w: int, count: int = 1
) -> Augmented:
    """One augmented sample of picture `index`.

    Args:
        fetch: `fetch(i)` gives a decoded picture, uint8 (H, W, 3), and its truth in pixels of that picture.
        count: number of pictures that a mosaic and a mixup may draw from (0 .. count - 1).
    """
    canvas, truth = _composed(fetch, index, rng, settings, (h, w), count)
    if settings.mixup and rng.random() < settings.mixup:
        other = _composed(fetch, int(rng.integers(0, max(count, 1))), rng, settings, (h, w), count)
        canvas, truth = mix((canvas, truth), other, float(rng.uniform(*_MIXUP_WEIGHT)))
    return Augmented(jitter_colour(canvas, rng, settings), *truth)


def _composed(
    fetch: Fetch, index: int, rng: np.random.Generator, settings: AugmentConfig, shape: tuple[int, int], count: int
) -> tuple[np.ndarray, GroundTruth]:
    """Everything that moves pixels: a canvas (h, w, 3) of the picture `index` or of four, perhaps mirrored, perhaps turned."""
    canvas = np.full((*shape, 3), settings.pad, np.uint8)
    if settings.mosaic and rng.random() < settings.mosaic:
        truth = _mosaic(canvas, fetch, index, rng, settings, count)
    else:
        image, source = fetch(index)
        truth = _paste(canvas, image, source, _crop(image, source, rng, settings, *shape), settings)
    if rng.random() < settings.flip:
        canvas, truth = flip_horizontally(canvas, truth)
    if settings.rotate and rng.random() < settings.rotate_share:
        canvas, truth = rotate(canvas, truth, float(rng.uniform(-settings.rotate, settings.rotate)), settings)
    for box in truth.boxes[~truth.ignore] if settings.occlude else ():
        if rng.random() < settings.occlude and (box[2:] - box[:2]).min() >= _OCCLUDED_FROM:
            occlude(canvas, box, rng)
    return canvas, truth


def letterbox_sample(image: np.ndarray, truth: GroundTruth, h: int, w: int, pad: int = 114) -> Augmented:
    """No chance at all: the picture fitted at the top left, the rest filled with `pad`.

    For validation loss while training; evaluation uses firmware.compiler.preprocess, whose resize is exact.
    """
    sh, sw = image.shape[:2]
    if sw * h >= sh * w:
        cw, ch = w, max(1, (2 * sh * w + sw) // (2 * sw))
    else:
        cw, ch = max(1, (2 * sw * h + sh) // (2 * sh)), h
    canvas = np.full((h, w, 3), pad, np.uint8)
    place = _Placement((cw / sw, ch / sh), (0.0, 0.0), (0, 0, cw, ch))
    return Augmented(canvas, *_paste(canvas, image, truth, place, _ALL_BOXES))


def flip_horizontally(image: np.ndarray, truth: GroundTruth) -> tuple[np.ndarray, GroundTruth]:
    """Mirror a picture (h, w, 3) and its boxes; twice is the identity."""
    boxes = truth.boxes.copy()
    boxes[:, [0, 2]] = image.shape[1] - truth.boxes[:, [2, 0]]
    return cv2.flip(image, 1), truth._replace(boxes=boxes)


def rotate(image: np.ndarray, truth: GroundTruth, degrees: float, settings: AugmentConfig) -> tuple[np.ndarray, GroundTruth]:
    """Turn a picture (h, w, 3) about its centre, anticlockwise. A box becomes that of the turned ellipse that filled it: the
    corners of a box round a face, and round most things, are empty."""
    h, w = image.shape[:2]
    turn = cv2.getRotationMatrix2D(((w - 1) / 2, (h - 1) / 2), degrees, 1.0)  # of pixel centres
    turned = cv2.warpAffine(image, turn, (w, h), flags=cv2.INTER_LINEAR, borderValue=(settings.pad,) * 3)
    middle = np.array([w / 2, h / 2])
    centres = ((truth.boxes[:, :2] + truth.boxes[:, 2:]) / 2 - middle) @ turn[:, :2].T + middle
    half = np.sqrt(((truth.boxes[:, 2:] - truth.boxes[:, :2]) / 2) ** 2 @ (turn[:, :2] ** 2).T)
    return turned, _cut(np.concatenate([centres - half, centres + half], 1), truth, (0, 0, w, h), settings)


def occlude(image: np.ndarray, box: np.ndarray, rng: np.random.Generator) -> None:
    """Hide one side of the object in `box`, in place, under an ellipse of what some other part of the picture shows (random
    erasing, Zhong et al., AAAI 2020, with a picture's own texture): hats, masks, hands, whoever stands in front."""
    h, w = image.shape[:2]
    side, sides = int(rng.integers(4)), box[2:] - box[:2]
    axis = side & 1  # 0: left or right, 1: top or bottom
    centre = (box[:2] + box[2:]) / 2
    centre[axis] = box[side]
    half = sides * rng.uniform(0.5, 0.8)
    half[axis] = sides[axis] * rng.uniform(*_OCCLUDED)
    x1, y1 = np.maximum(centre - half, 0).astype(int)
    x2, y2 = np.minimum(np.ceil(centre + half), (w, h)).astype(int)
    x, y = int(rng.integers(0, w - (x2 - x1) + 1)), int(rng.integers(0, h - (y2 - y1) + 1))
    cover = image[y : y + y2 - y1, x : x + x2 - x1].copy()
    rows, columns = np.mgrid[y1:y2, x1:x2] + 0.5
    inside = ((columns - centre[0]) / half[0]) ** 2 + ((rows - centre[1]) / half[1]) ** 2 <= 1
    image[y1:y2, x1:x2][inside] = cover[inside]


def mix(
    front: tuple[np.ndarray, GroundTruth], behind: tuple[np.ndarray, GroundTruth], weight: float
) -> tuple[np.ndarray, GroundTruth]:
    """weight * front + (1 - weight) * behind (mixup: Zhang et al., ICLR 2018). The objects behind are ignored: whether one can
    still be seen is for a teacher to say."""
    hidden = behind[1]._replace(ignore=np.ones(len(behind[1].boxes), bool))
    truth = GroundTruth(*(np.concatenate(parts) for parts in zip(front[1], hidden, strict=True)))
    return cv2.addWeighted(front[0], weight, behind[0], 1 - weight, 0), truth


def _crop(image: np.ndarray, truth: GroundTruth, rng: np.random.Generator, settings: AugmentConfig, h: int, w: int) -> _Placement:
    sh, sw = image.shape[:2]
    target = _pick_object(truth, rng) if settings.focus or settings.anchor_sampling else None
    box = None if target is None else truth.boxes[target]
    anchored = box is not None and rng.random() < settings.anchor_sampling
    if anchored:
        size = float(np.sqrt((box[2] - box[0]) * (box[3] - box[1])))
        zoom = float(np.clip(_log_uniform(rng, settings.target_size) / size, *settings.anchor_zoom))
    else:
        zoom = min(w / sw, h / sh) * _log_uniform(rng, settings.scale)
    stretch = float(np.sqrt(1 + rng.uniform(-settings.aspect, settings.aspect)))
    zooms = zoom * stretch, zoom / stretch
    around = anchored or (box is not None and rng.random() < settings.focus)
    offset = tuple(
        _offset(rng, side * z, canvas, (box[axis] * z, box[axis + 2] * z) if around else None)
        for axis, (side, canvas, z) in enumerate(zip((sw, sh), (w, h), zooms, strict=True))
    )
    return _Placement(zooms, offset, (0, 0, w, h))  # type: ignore[arg-type]


def _offset(rng: np.random.Generator, side: float, canvas: int, span: tuple[float, float] | None) -> float:
    """Where the zoomed picture of length `side` begins on the canvas; with a span of it in view where that is possible."""
    if span is None:
        low, high = min(0.0, canvas - side), max(0.0, canvas - side)
        return float(rng.uniform(low, high))
    first, last = float(-span[0]), float(canvas - span[1])  # the span lies at the left edge, at the right edge
    low, high = min(first, last), max(first, last)
    if side >= canvas:  # show no padding where the picture can fill the view
        low, high = max(low, canvas - side), min(high, 0.0)
    if low > high:  # a span that leaves the picture: follow the picture
        low = high = float(np.clip((low + high) / 2, min(0.0, canvas - side), max(0.0, canvas - side)))
    return float(rng.uniform(low, high))


def _pick_object(truth: GroundTruth, rng: np.random.Generator) -> int | None:
    """One object that counts: half of the time any, half of the time by the root of its size."""
    chosen = np.flatnonzero(~truth.ignore)
    if not len(chosen):
        return None
    if rng.random() < 0.5:
        return int(rng.choice(chosen))
    sides = truth.boxes[chosen, 2:] - truth.boxes[chosen, :2]
    weights = np.cumsum((sides[:, 0] * sides[:, 1]).astype(np.float64) ** 0.25)
    return int(chosen[min(np.searchsorted(weights, rng.random() * weights[-1]), len(chosen) - 1)])


def _mosaic(
    canvas: np.ndarray, fetch: Fetch, index: int, rng: np.random.Generator, settings: AugmentConfig, count: int
) -> GroundTruth:
    """Four pictures that meet at a random point, each with a corner there."""
    h, w = canvas.shape[:2]
    cx, cy = (int(round(side * rng.uniform(0.3, 0.7))) for side in (w, h))
    indices = [index, *(int(i) for i in rng.integers(0, max(count, 1), 3))]
    truths = []
    for quarter, number in enumerate(int(i) for i in rng.permutation(indices)):
        image, source = fetch(number)
        sh, sw = image.shape[:2]
        right, lower = quarter & 1, quarter >> 1
        zoom = min(w / sw, h / sh) * _log_uniform(rng, settings.mosaic_scale)
        stretch = float(np.sqrt(1 + rng.uniform(-settings.aspect, settings.aspect)))
        zooms = zoom * stretch, zoom / stretch
        offset = (cx if right else cx - sw * zooms[0], cy if lower else cy - sh * zooms[1])
        region = (cx if right else 0, cy if lower else 0, w if right else cx, h if lower else cy)
        truths.append(_paste(canvas, image, source, _Placement(zooms, offset, region), settings))
    return GroundTruth(*(np.concatenate(parts) for parts in zip(*truths, strict=True)))


def _paste(canvas: np.ndarray, image: np.ndarray, truth: GroundTruth, place: _Placement, settings: AugmentConfig) -> GroundTruth:
    """Draw the visible part of a picture into the canvas; returns its truth in canvas pixels, cut to what is visible."""
    sides = image.shape[1], image.shape[0]
    target: list[tuple[int, int]] = []
    source: list[tuple[int, int]] = []
    for axis in (0, 1):
        zoom, offset = place.zoom[axis], place.offset[axis]
        first = max(place.region[axis], round(offset))
        last = min(place.region[axis + 2], round(offset + sides[axis] * zoom))
        if last <= first:
            return GroundTruth.empty()
        begin = min(max(round((first - offset) / zoom), 0), sides[axis] - 1)
        end = min(max(round((last - offset) / zoom), begin + 1), sides[axis])
        target.append((first, last))
        source.append((begin, end))
    (x1, x2), (y1, y2) = target
    (sx1, sx2), (sy1, sy2) = source
    halvings = _halvings(min((sx2 - sx1) / (x2 - x1), (sy2 - sy1) / (y2 - y1)))
    sx2 = sx1 + ((sx2 - sx1) >> halvings << halvings)
    sy2 = sy1 + ((sy2 - sy1) >> halvings << halvings)
    piece = image[sy1:sy2, sx1:sx2]
    for _ in range(halvings):
        piece = cv2.resize(piece, (piece.shape[1] // 2, piece.shape[0] // 2), interpolation=cv2.INTER_AREA)
    cv2.resize(piece, (x2 - x1, y2 - y1), dst=canvas[y1:y2, x1:x2], interpolation=cv2.INTER_LINEAR)
    scale = np.array([(x2 - x1) / (sx2 - sx1), (y2 - y1) / (sy2 - sy1)] * 2)
    boxes = (truth.boxes - np.array([sx1, sy1, sx1, sy1])) * scale + np.array([x1, y1, x1, y1])
    return _cut(boxes, truth, (x1, y1, x2, y2), settings)


def _halvings(shrink: float) -> int:
    """How often to halve before the last, bilinear step: as free of aliasing as INTER_AREA, at a fifth of its time."""
    return max(0, int(np.log2(shrink) + 1e-9)) if shrink > 1 else 0


def _cut(boxes: np.ndarray, truth: GroundTruth, view: tuple[int, int, int, int], settings: AugmentConfig) -> GroundTruth:
    """Clip boxes to the view. Without a visible pixel they go; too small, too hidden or cut past the centre: ignore."""
    low, high = np.array(view[:2] * 2), np.array(view[2:] * 2)
    clipped = np.clip(boxes, low, high).astype(np.float32)
    sides = clipped[:, 2:] - clipped[:, :2]
    area = sides[:, 0] * sides[:, 1]
    whole = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    centre_out = ((centre < low[:2]) | (centre > high[:2])).any(1)
    ignore = truth.ignore | centre_out | (area < settings.min_visible * whole) | (area < settings.min_box**2)
    keep = ((sides >= 1).all(1)) | ((boxes == clipped).all(1) & (sides > 0).all(1))
    return GroundTruth(clipped[keep], truth.labels[keep], ignore[keep])


def _log_uniform(rng: np.random.Generator, bounds: Range) -> float:
    return float(np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]))))
