"""Exponential moving average of a model: what is validated, saved as best and shipped."""

import copy
import math

import torch
from torch import Tensor, nn


class Ema:
    """Average of all floating-point state, batch-norm statistics included.

    The decay ramps up as decay * (1 - exp(-updates / ramp)): without it, the first validations show the random start.
    """

    def __init__(self, model: nn.Module, decay: float, ramp: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.ramp, self.updates = decay, ramp, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        share = 1 - self.decay * (1 - math.exp(-self.updates / self.ramp))
        for mine, theirs in zip(_state(self.model), _state(model), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, share)
            else:
                mine.copy_(theirs)


def _state(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
