"""The door: a configuration and the name of a split -> a data set."""

from collections.abc import Iterator

from datasets import coco, voc, wider, yolo
from datasets.classes import ClassMap, class_map
from datasets.config import DataConfig, DataError, Split
from datasets.dataset import Dataset, RawImage, build_dataset
from datasets.scenes import SceneDataset


def open_dataset(config: DataConfig, split: Split, limit: int | None = None, check_files: bool = True) -> Dataset:
    """Open a split; annotations are read and checked now, pictures when asked for.

    Args:
        limit: keep only the first pictures.
        check_files: raise now if any listed picture is missing.

    Raises:
        DataError: whatever is wrong with the data set, with the file that it is in.
    """
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}, must be 1 or more")
    entries = config.entries(split)
    if config.format == "scenes":
        return SceneDataset.from_config(config, entries, limit)
    if not config.path.is_dir():
        raise DataError(f"{config.path}: no such folder: set 'path' in the data YAML to where the data set lies")
    raw, classes = _read(config, entries)
    where = f"{config.path} ({config.format}, {split})"
    return build_dataset(raw, classes, config.path, where, limit, check_files, exif=config.format == "yolo")


def _read(config: DataConfig, entries: tuple[str, ...]) -> tuple[Iterator[RawImage], ClassMap]:
    root = config.path
    if config.format == "wider":
        return _chain(wider.read_wider(root, entry) for entry in entries), class_map(config, wider.CLASSES)
    if config.format == "voc":
        return _chain(voc.read_voc(root, entry, config.difficult) for entry in entries), class_map(config, voc.CLASSES)
    if config.format == "coco":
        files = [coco.open_coco(root, entry) for entry in entries]
        prefix = len(files) > 1  # file names need not be unique across folders
        return _chain(coco.read_coco(file, prefix) for file in files), class_map(config, coco.categories(files))
    names = config.names or ()
    return yolo.read_yolo(root, entries, names), class_map(config, names)


def _chain(readers: Iterator[Iterator[RawImage]]) -> Iterator[RawImage]:
    for reader in readers:
        yield from reader
