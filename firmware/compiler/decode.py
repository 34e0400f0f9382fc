"""Head maps (int8) -> boxes: thresholds, box arithmetic and non-maximum suppression in integers only.

Sigmoid and exponential of an int8 have 256 answers, so `make_decode_spec` writes them into tables; everything after that is
exact integer arithmetic which the C runtime repeats. Positions are Q4 (1/16 pixel of the network's input), scores Q15.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from firmware.compiler.graph import Graph, Quantization

Q4, Q15 = 16, 32768


class DecodeError(ValueError):
    """Head maps or settings that no boxes can be decoded from."""


class DecodeSettings(Protocol):
    """What the user chooses; any object with these attributes will do."""

    score_threshold: float  # 0..1, candidates have at least this score
    iou_threshold: float  # 0..1, more overlap than this with a better box of the class suppresses
    max_candidates: int  # best ones that non-maximum suppression looks at
    max_detections: int


@dataclass(frozen=True)
class DecodeConfig:
    """DecodeSettings with usual values."""

    score_threshold: float = 0.3
    iou_threshold: float = 0.5
    max_candidates: int = 128
    max_detections: int = 32


@dataclass(frozen=True, eq=False)
class DecodeLevel:
    """One output resolution. Tables are indexed by q + 128."""

    stride: int  # input pixels a cell
    rows: int
    cols: int
    objectness: str  # names of graph outputs
    class_scores: str | None  # None when there is one class
    box: str
    objectness_table: np.ndarray  # uint16 (256,): sigmoid, Q15
    class_table: np.ndarray | None  # uint16 (256,)
    distance_table: np.ndarray  # int16 (256,): distance from the cell's centre to a side, Q4


@dataclass(frozen=True, eq=False)
class DecodeSpec:
    """Everything that decoding needs; levels by ascending stride."""

    levels: tuple[DecodeLevel, ...]
    class_names: tuple[str, ...]
    score_threshold: int  # Q15
    iou_threshold: int  # Q15
    max_candidates: int
    max_detections: int

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


class FloatDetections(NamedTuple):
    """Boxes in pixels of the original picture, best first."""

    boxes: np.ndarray  # (n, 4) float32 xyxy
    scores: np.ndarray  # (n,) float32
    labels: np.ndarray  # (n,) int64


def score_table(quant: Quantization) -> np.ndarray:
    """round(sigmoid(real(q)) * 2**15), uint16 (256,), for q = -128..127."""
    return np.rint(Q15 / (1 + np.exp(-_reals(quant)))).astype(np.uint16)


def distance_table(quant: Quantization, stride: int) -> np.ndarray:
    """round(stride * (exp(real(q)) - 0.5) * 16), saturated to int16, (256,), for q = -128..127."""
    with np.errstate(over="ignore"):  # infinity saturates as well
        distances = np.rint(stride * (np.exp(_reals(quant)) - 0.5) * Q4)
    return np.clip(distances, -32768, 32767).astype(np.int16)


def _reals(quant: Quantization) -> np.ndarray:
    return quant.scale * (np.arange(-128, 128, dtype=np.float64) - quant.zero_point)


def make_decode_spec(graph: Graph, strides: Sequence[int], class_names: Sequence[str], settings: DecodeSettings) -> DecodeSpec:
    """Tables and thresholds for a detector whose outputs are, per ascending stride: objectness, [class], box.

    Raises DecodeError when the graph's outputs are not that, or settings are out of range.
    """
    _check_settings(settings)
    if not class_names:
        raise DecodeError("class_names is empty: name at least one class")
    kinds = ["objectness", "class", "box"] if len(class_names) > 1 else ["objectness", "box"]
    if len(graph.outputs) != len(kinds) * len(strides):
        raise DecodeError(
            f"the graph has {len(graph.outputs)} outputs; {len(strides)} levels with {', '.join(kinds)} each are "
            f"{len(kinds) * len(strides)}"
        )
    if list(strides) != sorted(set(strides)) or any(stride < 1 for stride in strides):
        raise DecodeError(f"strides {tuple(strides)} must be positive and ascending")
    levels = tuple(
        _make_level(graph, stride, dict(zip(kinds, graph.outputs[i * len(kinds) :], strict=False)), len(class_names))
        for i, stride in enumerate(strides)
    )
    return DecodeSpec(
        levels,
        tuple(class_names),
        _to_q15(settings.score_threshold),
        _to_q15(settings.iou_threshold),
        settings.max_candidates,
        settings.max_detections,
    )


def _to_q15(value: float) -> int:
    return int(np.rint(value * Q15))


def _check_settings(settings: DecodeSettings) -> None:
    for name in ("score_threshold", "iou_threshold"):
        if not 0 <= getattr(settings, name) <= 1:
            raise DecodeError(f"{name} is {getattr(settings, name)}, expected 0..1")
    for name in ("max_candidates", "max_detections"):
        if not 1 <= getattr(settings, name) <= 65535:
            raise DecodeError(f"{name} is {getattr(settings, name)}, expected 1..65535")


def _make_level(graph: Graph, stride: int, names: dict[str, str], num_classes: int) -> DecodeLevel:
    picture = graph.tensors[graph.input].shape
    rows, cols = -(-picture.h // stride), -(-picture.w // stride)
    channels = {"objectness": 1, "class": num_classes, "box": 4}
    for kind, name in names.items():
        shape = graph.tensors[name].shape
        if not name.endswith(f"/{kind}") or tuple(shape) != (rows, cols, channels[kind]):
            raise DecodeError(
                f"output '{name}' {tuple(shape)} stands where stride {stride} has '.../{kind}' {(rows, cols, channels[kind])}"
            )
    quants = {kind: graph.tensors[name].quant for kind, name in names.items()}
    return DecodeLevel(
        stride,
        rows,
        cols,
        names["objectness"],
        names.get("class"),
        names["box"],
        score_table(quants["objectness"]),
        score_table(quants["class"]) if "class" in quants else None,
        distance_table(quants["box"], stride),
    )


def decode(spec: DecodeSpec, head_maps: Mapping[str, np.ndarray], content: tuple[int, int]) -> np.ndarray:
    """Detections, int32 (n, 6): x1, y1, x2, y2 in Q4 network pixels, score Q15, label; best first.

    `head_maps` are the network's int8 outputs (h, w, c) by name, `content` the (width, height) that the picture covers.
    """
    found = candidates(spec, head_maps, content)
    kept = nms(found, spec.iou_threshold, spec.max_detections)
    return vote(found, kept, spec.iou_threshold)


def candidates(spec: DecodeSpec, head_maps: Mapping[str, np.ndarray], content: tuple[int, int]) -> np.ndarray:
    """The best `max_candidates` by (score descending, class, cell), int32 (n, 6) as in `decode`, overlaps included."""
    parts, cells, first_cell = [], [], 0
    for level in spec.levels:
        part, cell = _level_candidates(level, head_maps, content, spec.score_threshold)
        parts.append(part)
        cells.append(first_cell + cell)
        first_cell += level.rows * level.cols
    found, cell = np.concatenate(parts), np.concatenate(cells)
    order = np.lexsort((cell, found[:, 5], -found[:, 4]))  # the last key counts most
    return found[order[: spec.max_candidates]]


def _level_candidates(
    level: DecodeLevel, head_maps: Mapping[str, np.ndarray], content: tuple[int, int], threshold: int
) -> tuple[np.ndarray, np.ndarray]:
    """(rows as in `decode`, unordered; cell number within the level of each)."""
    scores = _look_up(level.objectness_table, head_maps[level.objectness], level, 1).astype(np.uint32)
    if level.class_scores is not None:
        classes = head_maps[level.class_scores]
        scores = (scores * _look_up(level.class_table, classes, level, classes.shape[-1])) >> 15
    cell, label = np.nonzero(scores >= threshold)
    left, top, right, bottom = _look_up(level.distance_table, head_maps[level.box], level, 4)[cell].T.astype(np.int32)
    y, x = np.divmod(cell.astype(np.int32), level.cols)
    half = level.stride * (Q4 // 2)
    x_centre, y_centre = (2 * x + 1) * half, (2 * y + 1) * half
    x_max, y_max = content[0] * Q4, content[1] * Q4
    found = np.stack(
        [
            np.clip(x_centre - left, 0, x_max),
            np.clip(y_centre - top, 0, y_max),
            np.clip(x_centre + right, 0, x_max),
            np.clip(y_centre + bottom, 0, y_max),
            scores[cell, label].astype(np.int32),
            label.astype(np.int32),
        ],
        axis=1,
    )
    real = (found[:, 2] > found[:, 0]) & (found[:, 3] > found[:, 1])
    return found[real], cell[real]


def _look_up(table: np.ndarray, head_map: np.ndarray, level: DecodeLevel, channels: int) -> np.ndarray:
    """Table entries of a map as (cells, channels)."""
    if head_map.dtype != np.int8 or head_map.shape != (level.rows, level.cols, channels):
        raise DecodeError(
            f"a map of stride {level.stride} is {head_map.dtype} {head_map.shape}, "
            f"expected int8 {(level.rows, level.cols, channels)}"
        )
    return table[head_map.reshape(-1, channels).astype(np.int16) + 128]


def nms(found: np.ndarray, iou_threshold: int, max_detections: int) -> np.ndarray:
    """Indices of rows that survive greedy suppression within each class, in order; at most max_detections.

    `found` is as in `decode`, best first; a row falls when inter * 2**15 > iou_threshold * union with a better survivor.
    """
    alive = np.ones(len(found), bool)
    kept: list[int] = []
    for i in range(len(found)):
        if not alive[i]:
            continue
        kept.append(i)
        if len(kept) == max_detections:
            break
        alive[i + 1 :] &= ~_overlap(found[i], found[i + 1 :], iou_threshold)
    return np.array(kept, np.int64)


def vote(found: np.ndarray, kept: np.ndarray, iou_threshold: int) -> np.ndarray:
    """Rows `kept` of `found`, their corners the mean, weighted by score, of all rows that they overlap as in `nms`, themselves
    among them (Gidaris and Komodakis, ICCV 2015, 3.2); halves are rounded up."""
    voted = found[kept]
    for row in voted:
        voters = found[_overlap(row, found, iou_threshold)].astype(np.int64)
        weight = voters[:, 4].sum()
        if weight:  # none when nothing overlaps by more than a threshold of 1, or scores are 0
            row[:4] = (voters[:, 4] @ voters[:, :4] + weight // 2) // weight
    return voted


def _overlap(row: np.ndarray, others: np.ndarray, iou_threshold: int) -> np.ndarray:
    """Which of `others` (n, 6) are of the class of `row` and overlap it by more than the threshold, bool (n,)."""
    x1, y1, x2, y2, _, label = others.T.astype(np.int64)
    left, top, right, bottom, _, own = row.astype(np.int64)
    width = np.minimum(x2, right) - np.maximum(x1, left)
    height = np.minimum(y2, bottom) - np.maximum(y1, top)
    inter = np.maximum(width, 0) * np.maximum(height, 0)
    union = (x2 - x1) * (y2 - y1) + (right - left) * (bottom - top) - inter
    return (label == own) & (inter * Q15 > iou_threshold * union)


def to_original(detections: np.ndarray, content: tuple[int, int], original: tuple[int, int]) -> FloatDetections:
    """`decode`'s rows in pixels of the original picture, clipped to it; `content` and `original` are (width, height)."""
    factor = np.array([original[0] / content[0], original[1] / content[1]] * 2) / Q4
    limit = np.array([*original, *original], np.float64)
    boxes = np.clip(detections[:, :4] * factor, 0, limit)
    scores = detections[:, 4] / Q15
    return FloatDetections(boxes.astype(np.float32), scores.astype(np.float32), detections[:, 5].astype(np.int64))
