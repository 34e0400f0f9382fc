"""One process or several (`torchrun`): the little that the trainer must know about it."""

import os
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import distributed, nn

from detection.config import ConfigError


@dataclass(frozen=True)
class World:
    """This process among all; rank 0 writes files and prints."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def join_world(device: str) -> World:
    """The world that `torchrun` describes in the environment, or a world of one.

    Raises:
        ConfigError: the device does not exist.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    wanted = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if wanted == "cuda" and size > 1:
        wanted = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    try:
        chosen = torch.device(wanted)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"train.device={device}: {str(error).splitlines()[0]}") from None
    if size > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return World(rank, size, chosen)


def leave_world() -> None:
    if distributed.is_available() and distributed.is_initialized():
        with suppress(RuntimeError):
            distributed.destroy_process_group()


def parallel(model: nn.Module, world: World) -> nn.Module:
    """The model itself, or one that averages gradients over all processes."""
    if world.size == 1:
        return model
    return nn.parallel.DistributedDataParallel(model)


def any_process(flag: bool, world: World) -> bool:
    """True everywhere when true anywhere: all processes must stop at the same iteration."""
    if world.size == 1:
        return flag
    value = torch.tensor(int(flag), device=world.device)
    distributed.all_reduce(value, distributed.ReduceOp.MAX)
    return bool(value.item())


def barrier(world: World) -> None:
    if world.size > 1:
        distributed.barrier()
