"""From what a reader parsed to a sequence of samples: frames, clipping, classes. One place for the rules of boxes."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from datasets.annotations import DroppedBox, GroundTruth, Sample
from datasets.classes import ClassMap
from datasets.config import DataError
from datasets.images import OriginalSizes, decode_image, image_size

_SLACK = 1e-3  # pixels that a box may reach out of its picture unreported: rounding


class RawImage(NamedTuple):
    """One picture as an annotation file speaks of it; classes by name, boxes unchecked."""

    image_id: str
    path: Path
    boxes: np.ndarray  # (n, 4) float64 xyxy; pixels, or shares of the picture when `relative`
    names: Sequence[str]  # (n,) class of each box
    ignore: np.ndarray  # (n,) bool
    source: str  # "file" or "file:line", for messages
    size: tuple[int, int] | None = None  # (width, height) where the annotation file tells it
    relative: bool = False
    notes: tuple[DroppedBox, ...] = ()  # what the reader itself left out


@runtime_checkable
class Dataset(Protocol):
    """Pictures with truth; pictures are decoded on access, truths are at hand."""

    classes: tuple[str, ...]
    image_ids: tuple[str, ...]
    dropped: tuple[DroppedBox, ...]  # boxes left out
    clipped: tuple[DroppedBox, ...]  # boxes cut at the edge of the picture, as they were before

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...
    def truth(self, index: int) -> GroundTruth:
        """Boxes in pixels of the original, without decoding."""
        ...

    def size(self, index: int) -> tuple[int, int]:
        """(width, height) of the original."""
        ...

    def fetch(self, index: int) -> tuple[np.ndarray, GroundTruth]:
        """The picture as stored (perhaps shrunk) and its truth in pixels of *that* picture: what transforms work on."""
        ...

    def fingerprint(self) -> str:
        """64 hex digits: other pictures, other digits; a copy on another machine has the same."""
        ...


class Record(NamedTuple):
    """One picture of an `ImageDataset`."""

    image_id: str
    path: Path
    truth: GroundTruth
    width: int
    height: int


@dataclass(frozen=True)
class ImageDataset(Sequence[Sample]):
    """Pictures on disk."""

    classes: tuple[str, ...]
    records: tuple[Record, ...]
    dropped: tuple[DroppedBox, ...] = ()
    clipped: tuple[DroppedBox, ...] = ()
    exif: bool = False

    @cached_property
    def image_ids(self) -> tuple[str, ...]:
        return tuple(record.image_id for record in self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """Decodes the picture.

        Raises:
            DataError: the picture is missing or broken.
        """
        record = self.records[index]
        return Sample(decode_image(record.path, self.exif), record.truth, record.image_id, record.width, record.height)

    def truth(self, index: int) -> GroundTruth:
        return self.records[index].truth

    def size(self, index: int) -> tuple[int, int]:
        return self.records[index].width, self.records[index].height

    def fetch(self, index: int) -> tuple[np.ndarray, GroundTruth]:
        sample = self[index]
        return sample.image, to_image_pixels(sample)

    def fingerprint(self) -> str:
        return self._digest

    @cached_property
    def _digest(self) -> str:
        # Of what is in the files, not of when they were written: a run is resumed wherever its pictures were copied to.
        digest = hashlib.sha256()
        for record in self.records:
            with record.path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{record.image_id}\0{content}\n".encode())
        return digest.hexdigest()


def to_image_pixels(sample: Sample) -> GroundTruth:
    """The truth of a sample in pixels of its (perhaps shrunk) picture."""
    height, width = sample.image.shape[:2]
    if (width, height) == (sample.width, sample.height):
        return sample.truth
    scale = np.array([width / sample.width, height / sample.height] * 2, np.float32)
    return sample.truth._replace(boxes=sample.truth.boxes * scale)


def build_dataset(
    raw: Iterable[RawImage],
    classes: ClassMap,
    root: Path,
    where: str,
    limit: int | None = None,
    check_files: bool = True,
    exif: bool = False,
) -> ImageDataset:
    """Apply the rules that all formats share: original sizes, clipping, dropping, choice of classes.

    `where` names the split in messages; `limit` keeps the first pictures; `check_files=False` leaves missing
    pictures to be found on access.

    Raises:
        DataError: no pictures, a picture twice, a class that is not known, missing pictures.
    """
    sizes = OriginalSizes(root)
    records: list[Record] = []
    dropped: list[DroppedBox] = []
    clipped: list[DroppedBox] = []
    seen: set[str] = set()
    for item in raw:
        if limit is not None and len(records) >= limit:
            break
        if item.image_id in seen:
            raise DataError(f"{item.source}: {item.image_id} is listed twice")
        seen.add(item.image_id)
        width, height = sizes.lookup(item.path) or item.size or (0, 0)
        if width <= 0 or height <= 0:
            if not check_files and not item.path.is_file():
                width = height = 1 << 20  # datasets.check reports the missing picture itself
            else:
                width, height = image_size(item.path, exif)
        boxes = item.boxes * np.array([width, height, width, height]) if item.relative else item.boxes
        truth = _truth(item, boxes, width, height, classes, dropped, clipped)
        records.append(Record(item.image_id, item.path, truth, width, height))
    if not records:
        raise DataError(f"{where}: the data set is empty: no picture is listed")
    if check_files:
        _check_files(records, where)
    return ImageDataset(classes.classes, tuple(records), tuple(dropped), tuple(clipped), exif)


def _truth(
    item: RawImage,
    boxes: np.ndarray,
    width: int,
    height: int,
    classes: ClassMap,
    dropped: list[DroppedBox],
    clipped: list[DroppedBox],
) -> GroundTruth:
    dropped.extend(item.notes)
    labels = [classes.label(name, item.source) for name in item.names]
    chosen = np.array([label is not None for label in labels], bool)  # `keep:` leaves a class out: no fault
    inside = np.clip(boxes, 0, [width, height, width, height])
    beyond = np.abs(inside - boxes).max(1, initial=0)
    as_stored = inside.astype(np.float32)
    positive = (boxes[:, :2] < boxes[:, 2:]).all(1)
    visible = (as_stored[:, :2] < as_stored[:, 2:]).all(1)
    for index in np.flatnonzero(chosen & ~(positive & visible & (beyond <= _SLACK))):
        x1, y1, x2, y2 = (float(value) for value in boxes[index])
        frame = f"the {width} x {height} picture"
        if not positive[index]:
            dropped.append(DroppedBox(item.image_id, (x1, y1, x2, y2), f"width {x2 - x1:g}, height {y2 - y1:g}"))
        elif not visible[index]:
            dropped.append(DroppedBox(item.image_id, (x1, y1, x2, y2), f"outside of {frame}"))
        else:
            reason = f"reaches {beyond[index]:.4g} px out of {frame}"
            clipped.append(DroppedBox(item.image_id, (x1, y1, x2, y2), reason))
    keep = np.flatnonzero(chosen & positive & visible)
    if not len(keep):
        return GroundTruth.empty()
    return GroundTruth(
        as_stored[keep],
        np.array([labels[index] for index in keep], np.int64),
        np.asarray(item.ignore, bool)[keep],
    )


def _check_files(records: list[Record], where: str) -> None:
    missing = [record.path for record in records if not record.path.is_file()]
    if missing:
        raise DataError(
            f"{where}: {len(missing)} of {len(records)} pictures are missing, the first is {missing[0]}: "
            "check 'path' and the image folder, or take the pictures out of the list"
        )
