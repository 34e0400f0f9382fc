"""Box arithmetic on tensors. Boxes are xyxy, in pixels of whatever picture the caller speaks of."""

import math

import torch
from torch import Tensor

EPSILON = 1e-7


def area(boxes: Tensor) -> Tensor:
    """(..., 4) -> (...); negative extents count as none."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union, element by element with broadcasting: (..., 4), (..., 4) -> (...)."""
    inter = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    return inter / (area(a) + area(b) - inter + EPSILON)


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """(n, 4), (m, 4) -> (n, m)."""
    return iou(a[:, None], b[None])


def ciou(pred: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Complete IoU (Zheng et al., AAAI 2020) and plain IoU, both (n,): IoU - centre distance - aspect penalty."""
    overlap = iou(pred, truth)
    size, wanted, hull = _sizes(pred, truth)
    aspect = (4 / math.pi**2) * (_angle(wanted) - _angle(size)) ** 2
    with torch.no_grad():
        alpha = aspect / (1 - overlap + aspect + EPSILON)
    return overlap - _centre_distance(pred, truth, hull) - alpha * aspect, overlap


def eiou(pred: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Efficient IoU (Zhang et al., 2021) and plain IoU, both (n,): width and height are compared on their own."""
    overlap = iou(pred, truth)
    size, wanted, hull = _sizes(pred, truth)
    shape = ((size - wanted) ** 2 / (hull**2 + EPSILON)).sum(-1)
    return overlap - _centre_distance(pred, truth, hull) - shape, overlap


def _sizes(pred: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    hull = torch.maximum(pred[..., 2:], truth[..., 2:]) - torch.minimum(pred[..., :2], truth[..., :2])
    return pred[..., 2:] - pred[..., :2], truth[..., 2:] - truth[..., :2], hull


def _centre_distance(pred: Tensor, truth: Tensor, hull: Tensor) -> Tensor:
    """Squared distance of the centres over the squared diagonal of the hull."""
    offset = (pred[..., :2] + pred[..., 2:] - truth[..., :2] - truth[..., 2:]) / 2
    return (offset**2).sum(-1) / ((hull**2).sum(-1) + EPSILON)


def _angle(size: Tensor) -> Tensor:
    return torch.atan2(size[..., 0].clamp(min=EPSILON), size[..., 1].clamp(min=EPSILON))
