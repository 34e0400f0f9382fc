"""AdamW and its learning rate."""

import math

import torch
from torch import nn

from detection.config import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; biases and batch norm are not decayed."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


def learning_rate(config: TrainConfig, iteration: int, total: int) -> float:
    """Linear warm-up, then `lr`, then, over the last `decay` of all iterations, a cosine from `lr` to `lr * final_lr`.

    Constant and then decaying (Hu et al., MiniCPM, arXiv:2404.06395; Haegele et al., NeurIPS 2024) reaches what a cosine over
    the whole reaches, and its length need not be known when it begins.
    """
    warmup = min(config.warmup_iterations, total // 2)
    if iteration < warmup:
        return config.lr * (iteration + 1) / warmup
    begin = max(warmup, round(total * (1 - config.decay)))
    progress = max(iteration - begin, 0) / max(total - begin, 1)
    return config.lr * (config.final_lr + (1 - config.final_lr) * (1 + math.cos(math.pi * progress)) / 2)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
