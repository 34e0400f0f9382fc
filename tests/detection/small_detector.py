"""A detector that is small enough to quantise in a test, and pictures for it."""

import numpy as np
import torch

from detection.arch import Arch
from detection.model.detector import Detector

ARCH = Arch.model_validate(
    {
        "stem": {"channels": 8},
        "blocks": [
            {"kernel": 3, "expand": 2, "channels": 12, "stride": 2},
            {"kernel": 5, "expand": 2, "channels": 12},
            {"kernel": 3, "expand": 2, "channels": 16, "stride": 2},
        ],
        "head": {"strides": [4, 8], "channels": [8, 8]},
        "num_classes": 3,
    }
)


def make_detector(seed: int = 0) -> Detector:
    """Random weights, random batch norm statistics."""
    torch.manual_seed(seed)
    detector = Detector(ARCH)
    for unit in detector.convs.values():
        if unit.norm is not None:
            torch.nn.init.uniform_(unit.norm.weight, 0.5, 1.5)
            torch.nn.init.normal_(unit.norm.bias, std=0.3)
            torch.nn.init.normal_(unit.norm.running_mean, std=0.3)
            torch.nn.init.uniform_(unit.norm.running_var, 0.5, 2.0)
    return detector.eval()


def make_frames(count: int, height: int = 32, width: int = 48, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (count, height // 8, width // 8, 3)).repeat(8, 1).repeat(8, 2)
    return list((coarse + rng.integers(0, 56, coarse.shape)).astype(np.uint8))
