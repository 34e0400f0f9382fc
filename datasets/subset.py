"""Parts of a data set, fixed once and for all: by even spacing, or held out by a hash of the picture's name."""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from datasets.annotations import DroppedBox, GroundTruth, Sample
from datasets.dataset import Dataset


@dataclass(frozen=True)
class Subset(Sequence[Sample]):
    """Some pictures of a data set, by index, decoded when asked for."""

    source: Dataset
    indices: tuple[int, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.source.classes

    @cached_property
    def image_ids(self) -> tuple[str, ...]:
        return tuple(self.source.image_ids[index] for index in self.indices)

    @property
    def dropped(self) -> tuple[DroppedBox, ...]:
        return self._of_mine(self.source.dropped)

    @property
    def clipped(self) -> tuple[DroppedBox, ...]:
        return self._of_mine(self.source.clipped)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        return self.source[self.indices[index]]

    def truth(self, index: int) -> GroundTruth:
        return self.source.truth(self.indices[index])

    def size(self, index: int) -> tuple[int, int]:
        return self.source.size(self.indices[index])

    def fetch(self, index: int) -> tuple[np.ndarray, GroundTruth]:
        return self.source.fetch(self.indices[index])

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.source.fingerprint()} {self.indices}".encode()).hexdigest()

    def _of_mine(self, boxes: tuple[DroppedBox, ...]) -> tuple[DroppedBox, ...]:
        mine = set(self.image_ids)
        return tuple(box for box in boxes if box.image_id in mine)


def evenly_spaced(n: int, limit: int | None) -> tuple[int, ...]:
    """Indices of a fixed subset that is spread over all n: the same one on every run."""
    if limit is None or limit >= n:
        return tuple(range(n))
    if limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")
    return tuple(i * n // limit for i in range(limit))


def hold_out(dataset: Dataset, share: float) -> tuple[Subset, Subset]:
    """(rest, held out): about `share` of the pictures are held out, chosen by their names alone.

    So the choice survives a longer list, another order and another seed: what once was held out stays so.
    """
    held = [zlib.crc32(name.encode()) < share * 2**32 for name in dataset.image_ids]
    rest = tuple(index for index, out in enumerate(held) if not out)
    return Subset(dataset, rest), Subset(dataset, tuple(index for index, out in enumerate(held) if out))
