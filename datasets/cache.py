"""Decode once: the pictures of a data set in one memory-mapped file, so that training never decodes them twice."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from datasets.annotations import DroppedBox, GroundTruth, Sample
from datasets.config import DataError
from datasets.dataset import Dataset, to_image_pixels

_VERSION = 1
_ALIGN = 64


@dataclass(frozen=True)
class CachedDataset(Sequence[Sample]):
    """A data set whose pictures are read-only views into a file; truths come from the data set itself."""

    source: Dataset
    path: Path
    pixels: np.memmap  # uint8, all pictures one after the other
    index: np.ndarray  # (n, 3) int64: offset, height, width

    @property
    def classes(self) -> tuple[str, ...]:
        return self.source.classes

    @property
    def image_ids(self) -> tuple[str, ...]:
        return self.source.image_ids

    @property
    def dropped(self) -> tuple[DroppedBox, ...]:
        return self.source.dropped

    @property
    def clipped(self) -> tuple[DroppedBox, ...]:
        return self.source.clipped

    def __reduce__(self) -> tuple:
        """To another process travels the file's name, not its gigabytes."""
        return _open, (self.source, self.path, self.index)

    def __len__(self) -> int:
        return len(self.index)

    def image(self, index: int) -> np.ndarray:
        """uint8 (h, w, 3), read-only."""
        offset, height, width = (int(value) for value in self.index[index])
        return self.pixels[offset : offset + height * width * 3].reshape(height, width, 3)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        width, height = self.source.size(index)
        return Sample(self.image(index), self.source.truth(index), self.source.image_ids[index], width, height)

    def truth(self, index: int) -> GroundTruth:
        return self.source.truth(index)

    def size(self, index: int) -> tuple[int, int]:
        return self.source.size(index)

    def fetch(self, index: int) -> tuple[np.ndarray, GroundTruth]:
        sample = self[index]
        return sample.image, to_image_pixels(sample)

    def fingerprint(self) -> str:
        return self.source.fingerprint()


def cache_dataset(
    dataset: Dataset,
    folder: str | Path,
    long_side: int | None = None,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> CachedDataset:
    """Open the cache of a data set in `folder`, decoding it first where there is none (or pictures have changed).

    Args:
        long_side: pictures longer than this are shrunk, pixels.
        workers: decoding threads.
        progress: called with (pictures done, of how many) now and then.

    Raises:
        DataError: a picture is missing or broken, or the folder cannot be written. Nothing half-written is left.
    """
    if long_side is not None and long_side < 16:
        raise DataError(f"the cache's long side is {long_side} px, must be 16 or more")
    key = hashlib.sha256(f"{_VERSION} {long_side} {dataset.fingerprint()}".encode()).hexdigest()[:16]
    path = Path(folder) / f"pictures-{key}.bin"
    index = _read_index(path, len(dataset))
    if index is None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            index = _build(dataset, path, long_side, workers, progress)
        except OSError as error:
            raise DataError(f"{path}: the picture cache cannot be written: {error.strerror or error}") from None
    return _open(dataset, path, index)


def _open(dataset: Dataset, path: Path, index: np.ndarray) -> CachedDataset:
    return CachedDataset(dataset, path, np.memmap(path, np.uint8, mode="r"), index)


def _read_index(path: Path, count: int) -> np.ndarray | None:
    """The index where file and index belong together, else None."""
    try:
        index = np.array(json.loads(path.with_suffix(".json").read_text())["index"], np.int64).reshape(-1, 3)
        size = path.stat().st_size
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if len(index) != count or size != int((index[:, 0] + index[:, 1] * index[:, 2] * 3).max()):
        return None
    return index


def _build(
    dataset: Dataset, path: Path, long_side: int | None, workers: int, progress: Callable[[int, int], None] | None
) -> np.ndarray:
    """Pictures first, index last, both by rename: a reader never sees one without the other."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    rows: list[tuple[int, int, int]] = []
    offset = 0
    try:
        with partial.open("wb") as file:
            for image in _decoded(dataset, long_side, workers):
                file.write(b"\0" * (-offset % _ALIGN))
                offset += -offset % _ALIGN
                file.write(np.ascontiguousarray(image).data)
                rows.append((offset, *image.shape[:2]))
                offset += image.size
                if progress is not None and (len(rows) % 100 == 0 or len(rows) == len(dataset)):
                    progress(len(rows), len(dataset))
            file.flush()
            os.fsync(file.fileno())
        index_partial = partial.with_suffix(".json.partial")
        index_partial.write_text(json.dumps({"version": _VERSION, "index": rows}))
        os.replace(partial, path)
        os.replace(index_partial, path.with_suffix(".json"))
    finally:
        partial.unlink(missing_ok=True)
    return np.array(rows, np.int64).reshape(-1, 3)


def _decoded(dataset: Dataset, long_side: int | None, workers: int) -> Iterator[np.ndarray]:
    """Pictures in order, a few decoded ahead by threads (OpenCV lets go of Python's lock)."""

    def load(index: int) -> np.ndarray:
        image = dataset.fetch(index)[0]
        height, width = image.shape[:2]
        if long_side is not None and max(height, width) > long_side:
            scale = long_side / max(height, width)
            size = max(1, round(width * scale)), max(1, round(height * scale))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return image

    ahead = 4 * max(workers, 1)
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for start in range(0, len(dataset), ahead):
            yield from pool.map(load, range(start, min(start + ahead, len(dataset))))
