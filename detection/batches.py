"""Batches for training. What a batch holds depends on (seed, iteration) only: never on the number of loader processes,
nor on whether the run was interrupted before it. Every picture's random numbers come from (seed, epoch, index)."""

import signal
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from datasets.config import DataError
from datasets.dataset import Dataset
from datasets.transforms import Augmented, augment
from detection.assign import Truth
from detection.config import Config
from detection.distributed import World
from detection.teacher import YunetTeacher


class Batch(NamedTuple):
    """A batch as the loader delivers it."""

    images: Tensor  # (N, 3, H, W) uint8, channels last in memory
    truth: Truth  # boxes in input pixels
    teacher: Tensor | None = None  # (N, C, 5) float32: box and score of every cell

    def pin_memory(self) -> "Batch":
        teacher = None if self.teacher is None else self.teacher.pin_memory()
        return Batch(self.images.pin_memory(), Truth(*(part.pin_memory() for part in self.truth)), teacher)


class Lesson(NamedTuple):
    """What a loader makes of one picture."""

    sample: Augmented
    teacher: np.ndarray | None  # (C, 5) float32


class _Key(NamedTuple):
    epoch: int
    index: int


class TrainPictures(TorchDataset):
    """Augmented pictures by (epoch, index)."""

    def __init__(self, source: Dataset, config: Config) -> None:
        self.source, self.seed, self.settings = source, config.train.seed, config.augment
        self.size = config.crop
        self.teacher = YunetTeacher(config.train.teacher, *self.size) if config.train.teacher else None
        self.calm_from = config.train.epochs - config.train.calm_epochs

    def __getitem__(self, key: _Key) -> Lesson:
        rng = np.random.default_rng([self.seed, key.epoch, key.index])
        settings = self.settings.calm() if key.epoch >= self.calm_from else self.settings
        sample = augment(self.source.fetch, key.index, rng, settings, *self.size, count=len(self.source))
        return Lesson(sample, None if self.teacher is None else self.teacher.answers(sample.image))


class Schedule:
    """Which pictures make up which iteration: an endless, shuffled order, cut into batches, shared among processes.

    The last, incomplete batch of an epoch is left out (another one each epoch); a data set smaller than a batch repeats.
    """

    def __init__(self, count: int, batch_size: int, seed: int, world: World) -> None:
        self.count, self.batch_size, self.seed, self.world = count, batch_size, seed, world
        self.iterations_per_epoch = max(1, count // (batch_size * world.size))

    def batch(self, iteration: int) -> list[_Key]:
        """The pictures of this process at an iteration."""
        epoch, step = divmod(iteration, self.iterations_per_epoch)
        order = self._order(epoch)
        first = (step * self.world.size + self.world.rank) * self.batch_size
        return [_Key(epoch, int(order[i % self.count])) for i in range(first, first + self.batch_size)]

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(self.count)


class _Sampler:
    """Batches of a schedule from `first` to `stop`, for a DataLoader."""

    def __init__(self, schedule: Schedule, first: int, stop: int) -> None:
        self.schedule, self.first, self.stop = schedule, first, stop

    def __iter__(self) -> Iterator[list[_Key]]:
        return (self.schedule.batch(iteration) for iteration in range(self.first, self.stop))

    def __len__(self) -> int:
        return self.stop - self.first


def training_batches(source: Dataset, config: Config, schedule: Schedule, first: int, stop: int) -> Iterator[Batch]:
    """The batches of iterations [first, stop). Loader processes live as long as the iterator does."""
    pictures = TrainPictures(source, config)
    workers = config.train.workers
    loader = DataLoader(
        pictures,
        batch_sampler=_Sampler(schedule, first, stop),
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=_quiet_worker,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if workers else None,
    )
    return _with_plain_errors(iter(loader))


def _with_plain_errors(batches: Iterator[Batch]) -> Iterator[Batch]:
    """A loader process reports an error as a whole traceback; keep the line that a person needs."""
    try:
        yield from batches
    except ValueError as error:
        lines = str(error).strip().splitlines()
        if "DataLoader worker" not in lines[0]:
            raise
        raise DataError(lines[-1].partition(": ")[2] or lines[-1]) from None


def collate(lessons: Sequence[Lesson]) -> Batch:
    """Samples in input pixels -> Batch."""
    items = [lesson.sample for lesson in lessons]
    answers = [lesson.teacher for lesson in lessons if lesson.teacher is not None]
    images = torch.from_numpy(np.stack([item.image for item in items])).permute(0, 3, 1, 2)
    counts = [len(item.boxes) for item in items]
    return Batch(
        images,
        Truth(
            torch.from_numpy(np.concatenate([item.boxes for item in items])),
            torch.from_numpy(np.concatenate([item.labels for item in items])),
            torch.from_numpy(np.concatenate([item.ignore for item in items])),
            torch.from_numpy(np.repeat(np.arange(len(items)), counts)),
        ),
        torch.from_numpy(np.stack(answers)) if answers else None,
    )


def _quiet_worker(_: int) -> None:
    """One thread a loader process: OpenCV's and torch's pools would fight over the cores.

    Ctrl-C, and the SIGTERM that a job scheduler sends to a whole process group, are the trainer's: it ends the loaders.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
