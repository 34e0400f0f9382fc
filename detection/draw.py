"""Boxes on pictures, for demos, training plots and reports."""

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

from datasets.annotations import GroundTruth
from detection.detections import Detections

Color = tuple[int, int, int]  # RGB
FONT = cv2.FONT_HERSHEY_DUPLEX
TRUTH_COLOR: Color = (255, 255, 255)
IGNORED_COLOR: Color = (150, 150, 150)


def class_color(label: int) -> Color:
    """A colour of its own for every class: hues a golden angle apart, so that neighbours differ most."""
    hue = (0.36 + label * 0.381966) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def line_width(height: int, width: int) -> int:
    """Pixels: 1 on thumbnails, about 3 on a megapixel."""
    return max(1, round(0.003 * (height + width) / 2))


def draw_detections(
    image: np.ndarray,
    detections: Detections,
    classes: Sequence[str] = (),
    size: tuple[int, int] | None = None,
    min_score: float = 0.0,
) -> np.ndarray:
    """A copy of the picture with boxes, class names and scores; the best box is on top.

    image: uint8 (h, w, 3) RGB. size: (width, height) of the original that the boxes refer to, when the picture is a
    shrunk copy. A class without a name shows its number; with one class only the score is shown.
    """
    canvas = _canvas(image)
    shown = np.flatnonzero(detections.scores >= min_score)
    boxes = scaled(detections.boxes[shown], canvas, size)
    labels, scores = detections.labels[shown], detections.scores[shown]
    colors = [class_color(int(label)) for label in labels]
    texts = [_text(label, score, classes) for label, score in zip(labels, scores, strict=True)]
    for box, color in reversed(list(zip(boxes, colors, strict=True))):
        _box(canvas, box, color)
    _labels(canvas, boxes, texts, colors)
    return canvas


def draw_truth(
    image: np.ndarray, truth: GroundTruth, classes: Sequence[str] = (), size: tuple[int, int] | None = None
) -> np.ndarray:
    """A copy of the picture with what is true of it: thin white boxes, grey where a box is ignored."""
    canvas = _canvas(image)
    boxes = scaled(truth.boxes, canvas, size)
    colors = [IGNORED_COLOR if ignored else TRUTH_COLOR for ignored in truth.ignore]
    for box, color in zip(boxes, colors, strict=True):
        _box(canvas, box, color, width=1)
    if len(classes) > 1:
        _labels(canvas, boxes, [_text(label, None, classes) for label in truth.labels], colors)
    return canvas


def scaled(boxes: np.ndarray, image: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Boxes (n, 4) of a (width, height) original, in pixels of `image`."""
    if size is None:
        return boxes
    height, width = image.shape[:2]
    return boxes * np.array([width / size[0], height / size[1]] * 2, np.float32)


def tile_pictures(pictures: Sequence[np.ndarray], columns: int, gap: int = 4) -> np.ndarray:
    """Pictures side by side, uint8 (h, w, 3); each cell has the size of the largest one, the rest is dark grey."""
    if not pictures or columns < 1:
        raise ValueError("nothing to tile: give at least one picture and one column")
    height, width = (max(p.shape[axis] for p in pictures) for axis in (0, 1))
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 32, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet


def _canvas(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"a picture must be uint8 (h, w, 3), not {image.dtype} {image.shape}")
    return np.ascontiguousarray(image).copy()


def _text(label: int, score: float | None, classes: Sequence[str]) -> str:
    name = str(classes[label]) if 0 <= label < len(classes) else str(int(label))
    if score is None:
        return name
    return f"{score:.2f}" if len(classes) == 1 else f"{name} {score:.2f}"


def _box(canvas: np.ndarray, box: np.ndarray, color: Color, width: int | None = None) -> None:
    width = width or line_width(*canvas.shape[:2])
    x1, y1 = (int(np.floor(v)) for v in box[:2])
    x2, y2 = max(int(np.ceil(box[2])) - 1, x1), max(int(np.ceil(box[3])) - 1, y1)  # half-open -> last pixel
    if width > 1:  # a dark rim keeps the line visible on a bright picture
        cv2.rectangle(canvas, (x1, y1), (x2, y2), tuple(v // 4 for v in color), width + 2, cv2.LINE_AA)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), color, width, cv2.LINE_AA if width > 1 else cv2.LINE_8)


def _labels(canvas: np.ndarray, boxes: np.ndarray, texts: Sequence[str], colors: Sequence[Color]) -> None:
    """Text on plates, best box first. A plate that would cover another plate or the middle of a box is left out."""
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    plates: list[tuple[int, int, int, int]] = []
    for box, text, color in zip(boxes, texts, colors, strict=True):
        font_size = max(0.3, 0.00065 * (canvas.shape[0] + canvas.shape[1]) / 2)
        (text_width, text_height), baseline = cv2.getTextSize(text, FONT, font_size, 1)
        plate = _plate(canvas, box, text_width + 4, text_height + baseline + 1)
        left, top, right, bottom = plate
        hides = ((centers >= (left, top)) & (centers < (right, bottom))).all(axis=1).any()
        if hides or any(left < x2 and x1 < right and top < y2 and y1 < bottom for x1, y1, x2, y2 in plates):
            continue
        plates.append(plate)
        cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), color, -1)
        ink = (0, 0, 0) if np.dot(color, (0.3, 0.59, 0.11)) > 110 else (255, 255, 255)
        cv2.putText(canvas, text, (left + 2, top + text_height + 1), FONT, font_size, ink, 1, cv2.LINE_AA)


def _plate(canvas: np.ndarray, box: np.ndarray, plate_width: int, plate_height: int) -> tuple[int, int, int, int]:
    """Where a label goes, half-open: above its box, inside at the top edge, never outside of the picture."""
    height, width = canvas.shape[:2]
    line = line_width(height, width)
    left = min(max(int(box[0]) - line // 2, 0), max(width - plate_width, 0))
    top = int(box[1]) - plate_height - line // 2
    if top < 0:
        top = min(max(int(box[1]) + line, 0), max(height - plate_height, 0))
    return left, top, left + plate_width, top + plate_height
