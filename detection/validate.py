"""AP50 of the network in training on a fixed part of the validation split. The full protocols are in evaluate.py."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datasets.annotations import GroundTruth
from datasets.dataset import Dataset
from detection.config import DecodeConfig
from detection.decode import decode
from detection.detections import Detections
from detection.metrics.presence import presence_ap
from detection.metrics.voc import ap50
from detection.model.detector import Detector, normalise
from firmware.compiler.preprocess import content_size, letterbox

BATCH = 32


class ValidationSet:
    """At most `limit` pictures, evenly spread over the split: letterboxed, in memory (3 * height * width bytes each)."""

    def __init__(self, source: Dataset, height: int, width: int, limit: int) -> None:
        chosen = np.unique(np.linspace(0, len(source) - 1, min(limit, len(source))).round().astype(int)).tolist()
        self.classes = source.classes
        self.truths: list[GroundTruth] = [source.truth(index) for index in chosen]
        self.images = torch.empty(len(chosen), height, width, 3, dtype=torch.uint8)
        self.content = torch.empty(len(chosen), 2)
        self.sizes = torch.empty(len(chosen), 2)
        for row, index in enumerate(chosen):
            sample = source[index]
            self.images[row] = torch.from_numpy(letterbox(sample.image, height, width))
            rows, columns = sample.image.shape[:2]
            self.content[row] = torch.tensor(content_size((columns, rows), (width, height)), dtype=torch.float32)
            self.sizes[row] = torch.tensor([sample.width, sample.height], dtype=torch.float32)

    def __len__(self) -> int:
        return len(self.images)


@torch.no_grad()
def predict(
    detector: Detector, pictures: ValidationSet, config: DecodeConfig, advance: Callable[[int], None] | None = None
) -> Iterator[Detections]:
    """Detections in original pixels, picture by picture."""
    device = next(detector.parameters()).device
    detector.eval()
    for first in range(0, len(pictures), BATCH):
        rows = slice(first, first + BATCH)
        images = normalise(pictures.images[rows].permute(0, 3, 1, 2).to(device))
        found = decode(detector.arch, detector(images), config, pictures.content[rows])
        for one, content, size in zip(found, pictures.content[rows], pictures.sizes[rows], strict=True):
            yield Detections(_to_original(one.boxes.cpu(), content, size), one.scores.cpu().numpy(), one.labels.cpu().numpy())
        if advance is not None:
            advance(len(found))


class Validation(NamedTuple):
    """What a validation found."""

    ap: float  # mean AP at IoU .5 in [0, 1], of a classifier AP over pictures; NaN when the pictures show nothing
    found: list[Detections]  # picture by picture


def validate(
    detector: Detector, pictures: ValidationSet, config: DecodeConfig, advance: Callable[[int], None] | None = None
) -> Validation:
    """Run the network over the pictures. `advance` is called with the number of pictures just done."""
    found = list(predict(detector, pictures, config, advance))
    score = ap50 if detector.arch.classifier is None else presence_ap
    return Validation(score(zip(pictures.truths, found, strict=True), pictures.classes), found)


def _to_original(boxes: Tensor, content: Tensor, size: Tensor) -> np.ndarray:
    """Input pixels -> pixels of the original, clipped to it."""
    return torch.minimum(boxes * (size / content).repeat(2), size.repeat(2)).numpy()
