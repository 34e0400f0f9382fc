"""Head maps -> boxes, in float. The integer twin that a chip runs is `firmware/compiler/decode.py`."""

from typing import NamedTuple

import torch
from torch import Tensor

from detection.arch import Arch
from detection.boxes import pairwise_iou
from detection.config import DecodeConfig
from detection.model.detector import split_levels

MAX_LOG_DISTANCE = 8.0  # exp of more is beyond any picture; keeps gradients finite


class Cells(NamedTuple):
    """All cells of all levels in one row: levels by ascending stride, row-major within a level."""

    objectness: Tensor  # (N, C) logits
    classes: Tensor | None  # (N, C, K) logits, None when K == 1
    box: Tensor  # (N, C, 4) t_l, t_t, t_r, t_b
    centers: Tensor  # (C, 2) x, y in input pixels
    strides: Tensor  # (C,) float
    grids: tuple[tuple[int, int, int], ...]  # (stride, rows, columns) a level


class Found(NamedTuple):
    """Boxes of one picture, best first, in input pixels."""

    boxes: Tensor  # (n, 4) float32 xyxy
    scores: Tensor  # (n,)
    labels: Tensor  # (n,) int64


def flatten(arch: Arch, outputs: tuple[Tensor, ...]) -> Cells:
    """What `Detector.forward` returned, cell by cell, float32."""
    levels = split_levels(arch, outputs)
    rows = [tuple(_cells(part) for part in (level.objectness, level.classes, level.box)) for level in levels]
    grids = tuple((level.stride, *level.objectness.shape[2:]) for level in levels)
    centers, strides = zip(*(_grid(*grid, levels[0].box.device) for grid in grids), strict=True)
    return Cells(
        torch.cat([row[0] for row in rows], 1)[..., 0],
        None if rows[0][1] is None else torch.cat([row[1] for row in rows], 1),
        torch.cat([row[2] for row in rows], 1),
        torch.cat(centers),
        torch.cat(strides),
        grids,
    )


def decode_boxes(raw: Tensor, centers: Tensor, strides: Tensor) -> Tensor:
    """t -> xyxy: distance = stride * (exp(t) - 0.5), so that a centre may lie half a cell outside of its box.

    raw (..., 4), centers (..., 2), strides (...) -> (..., 4) in input pixels."""
    distance = strides[..., None] * (raw.clamp(max=MAX_LOG_DISTANCE).exp() - 0.5)
    return torch.cat([centers - distance[..., :2], centers + distance[..., 2:]], -1)


def scores_of(cells: Cells) -> Tensor:
    """(N, C, K): sigmoid(objectness) [* sigmoid(class)]."""
    objectness = cells.objectness.sigmoid()[..., None]
    return objectness if cells.classes is None else objectness * cells.classes.sigmoid()


@torch.no_grad()
def decode(arch: Arch, outputs: tuple[Tensor, ...], config: DecodeConfig, content: Tensor) -> list[Found]:
    """Threshold, clip to the content, keep the best candidates, suppress doubles, vote: one `Found` a picture. Of a classifier an
    answer for every class.

    Args:
        content: (N, 2) width and height in input pixels of the letterboxed picture; boxes are clipped to it.
    """
    if arch.classifier is not None:
        return [_presence(logits, size.to(logits)) for logits, size in zip(outputs[0][:, :, 0, 0], content, strict=True)]
    cells = flatten(arch, outputs)
    scores = scores_of(cells)
    boxes = decode_boxes(cells.box, cells.centers, cells.strides)
    return [
        _decode_one(boxes[i], scores[i], config, content[i].to(boxes)) for i in range(len(scores))
    ]


def _presence(logits: Tensor, content: Tensor) -> Found:
    """A classifier's answer for one picture, (K,): a box that covers the content for every class, best first, then by class."""
    scores, labels = torch.sort(logits.float().sigmoid(), descending=True, stable=True)
    boxes = torch.cat([torch.zeros_like(content), content]).float().expand(len(labels), 4)
    return Found(boxes, scores, labels)


def _decode_one(boxes: Tensor, scores: Tensor, config: DecodeConfig, content: Tensor) -> Found:
    boxes = torch.minimum(boxes.clamp(min=0), content.repeat(2))
    usable = ((boxes[:, 2:] > boxes[:, :2]).all(-1))[:, None] & (scores >= config.score_threshold)
    cell, label = usable.nonzero(as_tuple=True)  # row-major: cells ascending, classes ascending within a cell
    score = scores[cell, label]
    order = torch.argsort(label, stable=True)  # ties: score desc, then class, then cell
    order = order[torch.argsort(score[order], descending=True, stable=True)][: config.max_candidates]
    boxes, score, label = boxes[cell[order]], score[order], label[order]
    keep = nms(boxes, label, config.iou_threshold)[: config.max_detections]
    voted = vote(boxes, score, label, keep, config.iou_threshold)
    return Found(torch.minimum(voted, content.repeat(2)), score[keep], label[keep])  # a mean may be rounded beyond it


def nms(boxes: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Greedy suppression within each class. Boxes (n, 4) come best first; returns the indices kept, ascending.

    Equal to the sequential loop: a box goes when a *kept* better one of its class overlaps it by more than the threshold.
    """
    close = (pairwise_iou(boxes, boxes) > iou_threshold) & (labels[:, None] == labels[None])
    close = close.triu(1).cpu().numpy()
    kept = [True] * len(close)
    for i in range(len(kept)):
        if kept[i]:
            for j in close[i].nonzero()[0]:
                kept[j] = False
    return torch.tensor([i for i, keep in enumerate(kept) if keep], dtype=torch.int64, device=boxes.device)


def vote(boxes: Tensor, scores: Tensor, labels: Tensor, keep: Tensor, iou_threshold: float) -> Tensor:
    """Boxes (k, 4) of the candidates `keep`: each the mean, weighted by score, of all candidates of its class that it overlaps by
    more than the threshold, itself among them (Gidaris and Komodakis, ICCV 2015, 3.2)."""
    close = (pairwise_iou(boxes[keep], boxes) > iou_threshold) & (labels[keep][:, None] == labels[None])
    close[torch.arange(len(keep), device=keep.device), keep] = True
    weights = close * scores[None]
    return weights @ boxes / weights.sum(1, keepdim=True)


def _cells(maps: Tensor | None) -> Tensor | None:
    """(N, n, h, w) -> (N, h * w, n)."""
    return None if maps is None else maps.permute(0, 2, 3, 1).flatten(1, 2).float()


def _grid(stride: int, rows: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor]:
    y, x = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
    centers = (torch.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride
    return centers, torch.full((rows * columns,), float(stride), device=device)
