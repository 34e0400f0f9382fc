"""Generated scenes: textured shapes on cluttered ground, partly hidden; the same picture for the same (seed, split, index).

A data set that needs no download: for the demo, for tests of the whole line and for first experiments. Hidden shapes keep
the box of their whole extent inside the picture, as VOC's annotators guess it; those that show less than a third are
marked ignore.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from datasets.annotations import DroppedBox, GroundTruth, Sample
from datasets.classes import class_map
from datasets.config import DataConfig, DataError, SceneConfig

MIN_VISIBLE = 0.35  # share of a shape's area; below it the box is ignored
_EMPTY = 0.08  # share of pictures without shapes
_GONE = 0.03  # below this share there is nothing to ignore either
_SPLITS = ("train", "val")
_SHIFT = 4  # sub-pixel bits of cv2's polygon corners
_STEPS = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
_LETTERS = "AEFGHKLMNPRSWZ2457?&"
_VERSION = 1  # raise when pictures change: caches depend on it


@dataclass(frozen=True)
class SceneDataset(Sequence[Sample]):
    """Scenes drawn on access (about 2 ms at 160 x 128)."""

    config: SceneConfig
    split: str
    classes: tuple[str, ...]
    labels: tuple[int | None, ...]  # of config.classes, after `keep` and `merge_to`
    count: int
    dropped: tuple[DroppedBox, ...] = ()
    clipped: tuple[DroppedBox, ...] = ()

    @staticmethod
    def from_config(config: DataConfig, entries: tuple[str, ...], limit: int | None = None) -> "SceneDataset":
        """
        Raises:
            DataError: an entry other than "train" or "val".
        """
        if len(entries) != 1 or entries[0] not in _SPLITS:
            raise DataError(f"scenes have the splits {' and '.join(_SPLITS)}, not {', '.join(entries)}")
        scenes = config.scenes or SceneConfig()
        classes = class_map(config, scenes.classes)
        labels = tuple(classes.label(name, "scenes") for name in scenes.classes)
        count = scenes.count_train if entries[0] == "train" else scenes.count_val
        return SceneDataset(scenes, entries[0], classes.classes, labels, count if limit is None else min(limit, count))

    @cached_property
    def image_ids(self) -> tuple[str, ...]:
        return tuple(f"{self.split}/{index:06d}" for index in range(self.count))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        image, truth = self.fetch(index)
        return Sample(image, truth, f"{self.split}/{index % self.count:06d}", self.config.width, self.config.height)

    def fetch(self, index: int) -> tuple[np.ndarray, GroundTruth]:
        if not -self.count <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        image, truth = draw_scene(self.config, _SPLITS.index(self.split), index % self.count)
        labels = [self.labels[label] for label in truth.labels]
        kept = [position for position, label in enumerate(labels) if label is not None]
        chosen = np.array([labels[position] for position in kept], np.int64)
        return image, GroundTruth(truth.boxes[kept].reshape(-1, 4), chosen, truth.ignore[kept])

    def truth(self, index: int) -> GroundTruth:
        return self.fetch(index)[1]

    def size(self, index: int) -> tuple[int, int]:
        return self.config.width, self.config.height

    def fingerprint(self) -> str:
        text = f"{_VERSION} {self.split} {self.count} {self.config.model_dump_json()}"
        return hashlib.sha256(text.encode()).hexdigest()


def draw_scene(config: SceneConfig, split: int, index: int) -> tuple[np.ndarray, GroundTruth]:
    """Picture number `index` of a split: uint8 (height, width, 3) RGB and its truth, labels in `config.classes`."""
    rng = np.random.default_rng([config.seed, split, index])
    height, width = config.height, config.width
    image = _background(rng, height, width)
    owner = np.zeros((height, width), np.uint8)  # 0 ground, 1 + n shape n, 255 something in front
    for _ in range(rng.integers(1, 5)):
        _distractor(rng, image, owner, value=0)
    boxes: list[tuple[float, float, float, float]] = []
    labels: list[int] = []
    areas: list[float] = []
    count = 0 if rng.random() < _EMPTY else int(rng.integers(1, config.max_objects + 1))
    for number in range(count):
        label = int(rng.integers(len(config.classes)))
        corners = _place(rng, config, config.classes[label], boxes)
        if _paint(rng, image, owner, corners, number + 1):
            x1, y1 = np.maximum(corners.min(0), 0)
            x2, y2 = np.minimum(corners.max(0), (width, height))
            boxes.append((float(x1), float(y1), float(x2), float(y2)))
            labels.append(label)
            areas.append(_area(corners))
        else:
            boxes.append((0.0, 0.0, 0.0, 0.0))
            labels.append(label)
            areas.append(np.inf)
    for _ in range(rng.integers(0, 3)):
        _distractor(rng, image, owner, value=255)
    return _finish(rng, image), _scene_truth(owner, boxes, labels, areas)


def _scene_truth(owner: np.ndarray, boxes: list, labels: list[int], areas: list[float]) -> GroundTruth:
    pixels = np.bincount(owner.ravel(), minlength=256)[1 : len(boxes) + 1]
    visible = pixels / np.array(areas)
    present = visible >= _GONE
    return GroundTruth(np.array(boxes, np.float32)[present], np.array(labels, np.int64)[present], visible[present] < MIN_VISIBLE)


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Soft blobs of three colours, often with a pattern over a part of them."""
    coarse = rng.integers(0, 256, (int(rng.integers(2, 7)), int(rng.integers(2, 8)), 3), np.uint8)
    contrast = rng.uniform(0.2, 0.8)
    base = rng.uniform(20, 235, 3)
    coarse = np.clip(base + (coarse - 127.5) * contrast, 0, 255).astype(np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.6:
        pattern = _texture(rng, height, width, rng.uniform(0, 255, 3), rng.uniform(0, 255, 3))
        image = cv2.addWeighted(image, 0.65, pattern, 0.35, 0)
    if rng.random() < 0.5:  # a horizon: two halves of different light
        row = int(rng.integers(height // 4, 3 * height // 4))
        image[row:] = cv2.convertScaleAbs(image[row:], alpha=rng.uniform(0.5, 0.9))
    return image


def _texture(rng: np.random.Generator, h: int, w: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """uint8 (h, w, 3): flat, gradient, stripes, checker or blotches between two colours."""
    kind = rng.integers(5)
    if kind == 0:
        return np.full((h, w, 3), first.astype(np.uint8))
    y, x = np.arange(h, dtype=np.float32)[:, None], np.arange(w, dtype=np.float32)[None]
    angle = rng.uniform(0, np.pi)
    along = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
    if kind == 4:
        blotches = rng.integers(0, 256, (max(2, h // 5), max(2, w // 5)), np.uint8)
        mix = cv2.resize(blotches, (w, h), interpolation=cv2.INTER_LINEAR)
    elif kind == 1:
        low, high = along.min(), along.max()
        mix = ((along - low) * (255 / max(1.0, high - low))).astype(np.uint8)
    else:
        per_pixel = np.float32(1 / rng.uniform(4, 14))
        far = np.float32(1 << 14)  # keeps the bands' numbers positive, so that truncation is floor
        mix = (along * per_pixel + far).astype(np.int32)
        if kind == 3:
            across = np.float32(-np.sin(angle)) * x + np.float32(np.cos(angle)) * y
            mix ^= (across * per_pixel + far).astype(np.int32)
        mix &= 1
        return np.stack([first, second]).astype(np.uint8).take(mix, axis=0)
    return (first + _STEPS * (second - first)).astype(np.uint8).take(mix, axis=0)


def _place(rng: np.random.Generator, config: SceneConfig, name: str, boxes: list) -> np.ndarray:
    """Corners (n, 2) of a shape: size log-uniform, up to a quarter outside; of three places the least covered one."""
    side = min(config.width, config.height)
    size = side * np.exp(rng.uniform(np.log(config.min_size), np.log(config.max_size)))
    corners = _shape(rng, name) * size
    extent = corners.max(0) - corners.min(0)
    low, high = extent * 0.25, np.array([config.width, config.height]) - extent * 0.25
    high = np.maximum(high, low + 1e-3)
    best, least = low, np.inf
    for _ in range(3):
        centre = rng.uniform(low, high)
        first, last = centre - extent / 2, centre + extent / 2
        overlap = sum(
            max(0.0, min(last[0], b[2]) - max(first[0], b[0])) * max(0.0, min(last[1], b[3]) - max(first[1], b[1])) for b in boxes
        )
        if overlap < least:
            best, least = centre, overlap
        if overlap == 0:
            break
    return corners - (corners.max(0) + corners.min(0)) / 2 + best


def _shape(rng: np.random.Generator, name: str) -> np.ndarray:
    """Corners of a shape of about unit size round the origin, turned and stretched a little."""
    if name == "circle":
        turn = np.linspace(0, 2 * np.pi, 36, endpoint=False)
        corners = np.stack([np.cos(turn), np.sin(turn)], 1) / 2
    elif name == "square":
        corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.46
    elif name == "triangle":
        corners = np.array([(0, -0.52), (0.54, 0.42), (-0.54, 0.42)])
    else:
        arm = rng.uniform(0.13, 0.2)
        quarter = np.array([(arm, -0.5), (arm, -arm), (0.5, -arm)])
        turns = ((1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0))
        corners = np.concatenate([quarter @ np.array(turn, float).reshape(2, 2) for turn in turns])
    angle = np.deg2rad(rng.uniform(-18, 18))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return corners * [rng.uniform(0.85, 1.15), 1] @ rotation


def _area(corners: np.ndarray) -> float:
    x, y = corners.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def _paint(rng: np.random.Generator, image: np.ndarray, owner: np.ndarray, corners: np.ndarray, value: int) -> bool:
    """Fill a polygon with a texture that stands out from what lies below it; False where it is out of the picture."""
    height, width = owner.shape
    x1, y1 = np.maximum(np.floor(corners.min(0)).astype(int) - 1, 0)
    x2, y2 = np.minimum(np.ceil(corners.max(0)).astype(int) + 1, (width, height))
    if x2 - x1 < 1 or y2 - y1 < 1:
        return False
    mask = np.zeros((y2 - y1, x2 - x1), np.uint8)
    points = np.round((corners - (x1, y1) - 0.5) * (1 << _SHIFT)).astype(np.int32)
    cv2.fillPoly(mask, [points], 255, cv2.LINE_AA, _SHIFT)
    below = image[y1:y2, x1:x2]
    ground = np.array(cv2.mean(below, mask)[:3])
    first, second = _contrasting(rng, ground), rng.uniform(0, 255, 3)
    second = first + (second - first) * rng.uniform(0.15, 0.5)
    texture = _texture(rng, y2 - y1, x2 - x1, first, second)
    alpha = cv2.cvtColor(mask, cv2.COLOR_GRAY2RGB)
    blended = cv2.add(cv2.multiply(texture, alpha, scale=1 / 255), cv2.multiply(below, cv2.bitwise_not(alpha), scale=1 / 255))
    image[y1:y2, x1:x2] = blended
    owner[y1:y2, x1:x2][mask > 127] = value
    return True


def _contrasting(rng: np.random.Generator, ground: np.ndarray) -> np.ndarray:
    best, distance = ground, -1.0
    for colour in rng.uniform(0, 255, (3, 3)):
        apart = float(np.abs(colour - ground).sum())
        if apart > distance:
            best, distance = colour, apart
    return best


def _distractor(rng: np.random.Generator, image: np.ndarray, owner: np.ndarray, value: int) -> None:
    """Something that is none of the classes: a bar, a line, a ring, an arc or a letter; hides shapes where `value`."""
    height, width = owner.shape
    side = min(height, width)
    colour = tuple(int(c) for c in rng.integers(0, 256, 3))
    x, y = int(rng.integers(width)), int(rng.integers(height))
    kind, thickness, turn = rng.integers(5), int(rng.integers(1, 4)), float(rng.uniform(0, 180))
    first, second = rng.random(2)
    for canvas, ink in ((image, colour), (owner, value)) if value else ((image, colour),):
        if kind == 0:
            corners = cv2.boxPoints(((x, y), (side * (0.3 + 0.7 * first), side * (0.03 + 0.07 * second)), turn))
            cv2.fillPoly(canvas, [corners.astype(np.int32)], ink)
        elif kind == 1:
            cv2.line(canvas, (x, y), (int(first * width), int(second * height)), ink, thickness)
        elif kind == 4:
            letter = _LETTERS[int(first * len(_LETTERS))]
            size = side / 128 * (0.5 + second)
            cv2.putText(canvas, letter, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, ink, thickness)
        else:  # rings and arcs, clearly flatter than the class "circle"
            long_axis = side * (0.08 + 0.22 * first)
            axes = int(long_axis), max(1, int(long_axis * (0.25 + 0.35 * second)))
            cv2.ellipse(canvas, (x, y), axes, turn, 0, 360 if kind == 2 else 60 + turn, ink, thickness)


def _finish(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Light, a little blur and sensor noise."""
    if rng.random() < 0.35:
        image = cv2.GaussianBlur(image, (3, 3), float(rng.uniform(0.4, 1.0)))
    image = cv2.convertScaleAbs(image, alpha=float(rng.uniform(0.7, 1.15)), beta=float(rng.uniform(0, 25)))
    strength = int(rng.integers(1, 12))
    noise = rng.integers(0, 2 * strength + 1, image.shape, np.uint8)
    return cv2.subtract(cv2.add(image, noise), (strength, strength, strength, 0))
