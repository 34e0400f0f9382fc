"""Which cells learn which object: SimOTA (Ge et al., YOLOX, 2021) on sparse candidates, a whole batch at once.

An object may take the 3x3 cells around its centre on every level. The network's own predictions decide: cells are
ranked by cost = classification + 3 * -log IoU + a penalty for centres outside of the box, and an object takes as many
as its best IoUs add up to. The work grows with the number of objects, not with the number of cells.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from detection.boxes import iou
from detection.decode import Cells, decode_boxes

IOU_WEIGHT = 3.0
OUTSIDE_PENALTY = 3.0  # a cell per cell of distance: such cells serve boxes smaller than a cell, or none
TOP_IOUS = 10
_IMPOSSIBLE = 1e6


class Truth(NamedTuple):
    """Objects of a batch, all pictures in one row; boxes xyxy in input pixels."""

    boxes: Tensor  # (M, 4) float32
    labels: Tensor  # (M,) int64
    ignore: Tensor  # (M,) bool: cells there are not taught that nothing is there
    image: Tensor  # (M,) int64: index in the batch

    def to(self, device: torch.device) -> "Truth":
        return Truth(*(part.to(device, non_blocking=True) for part in self))


class Assignment(NamedTuple):
    """Pairs of a cell and the object it learns; a cell occurs at most once."""

    image: Tensor  # (P,) int64
    cell: Tensor  # (P,) int64
    target: Tensor  # (P,) int64: row of Truth


@torch.no_grad()
def assign(cells: Cells, truth: Truth, radius: int = 1) -> Assignment:
    """Assign the objects of `truth` that are not ignored; every one with a cell inside the picture competes.

    Args:
        radius: candidates are the (2 * radius + 1)^2 cells around the centre, on each level.
    """
    rows = (~truth.ignore).nonzero()[:, 0]
    if not len(rows):
        return Assignment(rows, rows, rows)
    boxes, image = truth.boxes[rows], truth.image[rows]
    cell, inside = _candidates(cells, boxes, radius)  # (G, A) both
    cost, overlap = _cost(cells, boxes, truth.labels[rows], image, cell)
    cost = cost.masked_fill(~inside, _IMPOSSIBLE)
    overlap = overlap.masked_fill(~inside, 0.0)

    top = overlap.topk(min(TOP_IOUS, overlap.shape[1]), dim=1).values.sum(1)
    wanted = top.floor().clamp(min=1).long()
    order = cost.argsort(dim=1, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
    chosen = (rank < wanted[:, None]) & inside
    owner, column = chosen.nonzero(as_tuple=True)
    return _resolve(owner, image[owner], cell[owner, column], cost[owner, column], rows, len(cells.centers))


@torch.no_grad()
def ignored_cells(cells: Cells, truth: Truth, n_images: int) -> Tensor:
    """(N, C) bool: cells that touch an ignored box, whose objectness is left untaught unless they are assigned."""
    return touching_cells(cells, truth, truth.ignore, n_images)


@torch.no_grad()
def touching_cells(cells: Cells, truth: Truth, which: Tensor, n_images: int) -> Tensor:
    """(N, C) bool: cells that touch a box of `truth` for which `which`, (M,) bool, is true."""
    mask = torch.zeros(n_images, len(cells.centers), dtype=torch.bool, device=cells.centers.device)
    rows = which.nonzero()[:, 0]
    if len(rows):
        boxes, half = truth.boxes[rows], cells.strides[:, None] / 2
        touches = (cells.centers + half > boxes[:, None, :2]) & (cells.centers - half < boxes[:, None, 2:])
        row, cell = touches.all(-1).nonzero(as_tuple=True)
        mask[truth.image[rows][row], cell] = True
    return mask


def _candidates(cells: Cells, boxes: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Cell indices (G, A), A = levels * (2 radius + 1)^2, and whether they lie inside the map."""
    steps = torch.arange(-radius, radius + 1, device=boxes.device)
    dy, dx = (part.reshape(-1) for part in torch.meshgrid(steps, steps, indexing="ij"))
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    first, found, valid = 0, [], []
    for stride, height, width in cells.grids:
        column = (center[:, :1] / stride).floor().long() + dx
        row = (center[:, 1:] / stride).floor().long() + dy
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        found.append(torch.where(inside, first + row * width + column, first))
        valid.append(inside)
        first += height * width
    return torch.cat(found, 1), torch.cat(valid, 1)


def _cost(cells: Cells, boxes: Tensor, labels: Tensor, image: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Cost and IoU of every candidate, (G, A) both."""
    batch = image[:, None].expand_as(cell)
    centers, strides = cells.centers[cell], cells.strides[cell]
    overlap = iou(decode_boxes(cells.box[batch, cell], centers, strides), boxes[:, None])
    log_score = F.logsigmoid(cells.objectness[batch, cell])
    if cells.classes is not None:
        log_score = log_score + F.logsigmoid(cells.classes[batch, cell, labels[:, None].expand_as(cell)])
    beyond = torch.maximum(boxes[:, None, :2] - centers, centers - boxes[:, None, 2:]).clamp(min=0).amax(-1)
    cost = -log_score - IOU_WEIGHT * (overlap + 1e-6).log() + OUTSIDE_PENALTY * beyond / strides
    return cost, overlap


def _resolve(owner: Tensor, image: Tensor, cell: Tensor, cost: Tensor, rows: Tensor, n_cells: int) -> Assignment:
    """Where several objects want a cell, the cheapest gets it (on a tie the first)."""
    place, inverse = torch.unique(image * n_cells + cell, return_inverse=True)
    best = torch.full((len(place),), float("inf"), device=cost.device)
    best = best.scatter_reduce(0, inverse, cost, "amin")
    winner = torch.full((len(place),), len(rows), dtype=torch.int64, device=cost.device)
    cheapest = cost == best[inverse]
    winner = winner.scatter_reduce(0, inverse[cheapest], owner[cheapest], "amin")
    return Assignment(place // n_cells, place % n_cells, rows[winner])
