"""What training minimises, as named terms, so that a term that is no number can be named."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from detection.arch import Arch
from detection.assign import Truth, assign, ignored_cells, touching_cells
from detection.boxes import area, ciou, eiou
from detection.config import LossConfig
from detection.decode import Cells, decode_boxes, flatten

TEACHER_SURE = 0.3  # score from which a cell learns the teacher's box, and is not taught that nothing is there


class Loss(NamedTuple):
    """Weighted terms, each a scalar; the number of cells that learn an object."""

    terms: dict[str, Tensor]  # "box", "objectness", of several classes "class", with a teacher "teacher" and "teacher_box"
    positives: int

    @property
    def total(self) -> Tensor:
        return sum(self.terms.values())  # type: ignore[return-value]


def detection_loss(
    arch: Arch, outputs: tuple[Tensor, ...], truth: Truth, config: LossConfig, teacher: Tensor | None = None
) -> Loss:
    """Loss of a batch: sums over cells divided by the number of assigned cells (at least 1); `presence_loss` of a classifier.

    Args:
        teacher: (N, C, 5) what it says of every cell, a box in input pixels and a score in [0, 1].
    """
    if arch.classifier is not None:
        return presence_loss(outputs[0][:, :, 0, 0], truth, config)
    cells = flatten(arch, outputs)
    n_images = len(cells.objectness)
    image, cell, target = assign(cells, truth, config.radius)
    boxes = decode_boxes(cells.box[image, cell], cells.centers[cell], cells.strides[cell])
    similarity, overlap = (eiou if config.box_kind == "eiou" else ciou)(boxes, truth.boxes[target])
    quality = overlap.detach().clamp(0, 1)
    scale = 1 / max(len(cell), 1)

    wanted = torch.zeros_like(cells.objectness)
    wanted[image, cell] = config.iou_floor + (1 - config.iou_floor) * quality
    untaught = ignored_cells(cells, truth, n_images)
    if teacher is not None:
        untaught |= teacher[..., 4] >= TEACHER_SURE
    weight = (~untaught).float()
    weight[image, cell] = 1.0
    terms = {
        "box": config.box * scale * (1 - similarity).sum(),
        "objectness": config.objectness * scale * (weight * _objectness(cells.objectness, wanted, config)).sum(),
    }
    if cells.classes is not None:
        one_hot = F.one_hot(truth.labels[target], arch.num_classes).float()
        loss = F.binary_cross_entropy_with_logits(cells.classes[image, cell], one_hot, reduction="sum")
        terms["class"] = config.classes * scale * loss
    if teacher is not None:
        scores, corners = _teacher_terms(cells, truth, teacher, config)
        terms |= {"teacher": config.teacher * scale * scores, "teacher_box": config.teacher_box * scale * corners}
    return Loss(terms, len(cell))


def _teacher_terms(cells: Cells, truth: Truth, teacher: Tensor, config: LossConfig) -> tuple[Tensor, Tensor]:
    """Sums over cells of what differs from the teacher's scores, in ignored areas too, and from its boxes, by score.

    A cell at a face too small for the teacher (`loss.teacher_from`) learns neither: there it would learn not to see it.
    """
    small = area(truth.boxes) < config.teacher_from**2
    heard = ~touching_cells(cells, truth, small, len(teacher))
    score = teacher[..., 4]
    scores = (heard * _objectness(cells.objectness, score, config)).sum()
    image, cell = (heard & (score >= TEACHER_SURE)).nonzero(as_tuple=True)
    boxes = decode_boxes(cells.box[image, cell], cells.centers[cell], cells.strides[cell])
    similarity, _ = (eiou if config.box_kind == "eiou" else ciou)(boxes, teacher[image, cell, :4])
    return scores, (score[image, cell] * (1 - similarity)).sum()


def presence_loss(logits: Tensor, truth: Truth, config: LossConfig) -> Loss:
    """Cross entropy of a classifier, a mean over pictures and classes. logits: (N, K).

    A picture shows a class when an object of it is in `truth`; where all of them are ignored (cut off, or under
    `augment.min_box`) it teaches nothing of that class.
    """
    shown, unsure = torch.zeros_like(logits, dtype=torch.float32), torch.zeros_like(logits, dtype=torch.float32)
    shown[truth.image[~truth.ignore], truth.labels[~truth.ignore]] = 1.0
    unsure[truth.image[truth.ignore], truth.labels[truth.ignore]] = 1.0
    weight = torch.maximum(shown, 1 - unsure)
    loss = F.binary_cross_entropy_with_logits(logits.float(), shown, reduction="none")
    return Loss({"class": config.classes * (weight * loss).sum() / weight.sum().clamp(min=1)}, int(shown.sum()))


def _objectness(logits: Tensor, wanted: Tensor, config: LossConfig) -> Tensor:
    """Cross entropy with a soft target; "quality_focal" (Li et al., NeurIPS 2020) weighs it by |target - score|^2."""
    loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    if config.objectness_kind == "bce":
        return loss
    return loss * (wanted - logits.sigmoid()) ** 2
