"""Several data sets of the same classes as one: further pictures to train on."""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np

from datasets.annotations import DroppedBox, GroundTruth, Sample
from datasets.config import DataError
from datasets.dataset import Dataset


@dataclass(frozen=True)
class Joined(Sequence[Sample]):
    """The pictures of all parts, one part after the other; ids carry the number of their part, so that none stands twice."""

    parts: tuple[Dataset, ...]

    def __post_init__(self) -> None:
        """Raises DataError: parts of other classes."""
        for part in self.parts[1:]:
            if part.classes != self.classes:
                raise DataError(f"data sets to be joined must have the same classes: {self.classes} and {part.classes} differ")

    @property
    def classes(self) -> tuple[str, ...]:
        return self.parts[0].classes

    @cached_property
    def image_ids(self) -> tuple[str, ...]:
        return tuple(f"{number}/{name}" for number, part in enumerate(self.parts) for name in part.image_ids)

    @property
    def dropped(self) -> tuple[DroppedBox, ...]:
        return tuple(_of_part(n, box) for n, part in enumerate(self.parts) for box in part.dropped)

    @property
    def clipped(self) -> tuple[DroppedBox, ...]:
        return tuple(_of_part(n, box) for n, part in enumerate(self.parts) for box in part.clipped)

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        return tuple(accumulate(len(part) for part in self.parts))

    def _find(self, index: int) -> tuple[Dataset, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self._ends, index)
        return self.parts[number], index - (self._ends[number - 1] if number else 0)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        part, at = self._find(index)
        return part[at]._replace(image_id=self.image_ids[index])

    def truth(self, index: int) -> GroundTruth:
        part, at = self._find(index)
        return part.truth(at)

    def size(self, index: int) -> tuple[int, int]:
        part, at = self._find(index)
        return part.size(at)

    def fetch(self, index: int) -> tuple[np.ndarray, GroundTruth]:
        part, at = self._find(index)
        return part.fetch(at)

    def fingerprint(self) -> str:
        return hashlib.sha256(" ".join(part.fingerprint() for part in self.parts).encode()).hexdigest()


def _of_part(number: int, box: DroppedBox) -> DroppedBox:
    return box._replace(image_id=f"{number}/{box.image_id}")
