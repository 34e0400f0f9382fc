"""Read a whole data set once and say what is in it and what is wrong with it.

    python -m datasets.check configs/data/voc9.yaml
    python -m datasets.check configs/data/wider.yaml --split val --all

Exit code 1 if a picture is missing or broken or does not have the shape of its annotations.
"""

import argparse
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from datasets.annotations import DroppedBox
from datasets.catalog import open_dataset
from datasets.cli import run, say
from datasets.config import DataConfig, DataError, Split, load_data_config
from datasets.dataset import Dataset, ImageDataset
from datasets.images import verify_image

_SHOWN = 10  # entries of a list without --all
_EDGES = (0, 8, 16, 32, 64, 128, 256, np.inf)  # of the histogram, pixels of the original


@dataclass
class SplitReport:
    """What one pass over a split found."""

    split: str
    dataset: Dataset
    broken: list[str] = field(default_factory=list)  # one message a picture
    digests: dict[str, str] = field(default_factory=dict)  # image_id -> hash of the file


def check_split(config: DataConfig, split: Split, limit: int | None = None, progress: Callable[[str], None] = say) -> SplitReport:
    """Open a split, decode each of its pictures.

    Raises:
        DataError: the annotations cannot be read; broken pictures are collected instead.
    """
    dataset = open_dataset(config, split, limit, check_files=False)
    report = SplitReport(split, dataset)
    if not isinstance(dataset, ImageDataset):
        for index in range(len(dataset)):
            dataset[index]
        return report

    def look(index: int) -> tuple[str | None, str]:
        record = dataset.records[index]
        try:
            width, height = verify_image(record.path)
            if dataset.exif:
                width, height = record.width, record.height  # turned by its header; no annotation tells a size
            message = _shape_message(record.path, (width, height), (record.width, record.height))
            digest = hashlib.blake2b(record.path.read_bytes(), digest_size=16).hexdigest()
        except DataError as error:
            return str(error), ""
        return message, digest

    with ThreadPoolExecutor(2) as pool:
        for index, (message, digest) in enumerate(pool.map(look, range(len(dataset)), chunksize=16)):
            if message:
                report.broken.append(message)
            elif digest:
                report.digests[dataset.records[index].image_id] = digest
            if (index + 1) % 2000 == 0:
                progress(f"{split}: {index + 1} of {len(dataset)} pictures read")
    return report


def _shape_message(path: object, picture: tuple[int, int], original: tuple[int, int]) -> str | None:
    """A shrunk copy keeps its proportions to a pixel; anything else is another picture than the annotated one."""
    (w, h), (ow, oh) = picture, original
    if abs(w * oh - h * ow) <= 1.5 * max(ow, oh):
        return None
    return f"{path}: picture is {w} x {h}, its annotations speak of {ow} x {oh}"


def describe(report: SplitReport, show_all: bool = False) -> str:
    """The report of a split as text."""
    dataset = report.dataset
    truths = [dataset.truth(index) for index in range(len(dataset))]
    boxes = np.concatenate([truth.boxes for truth in truths])
    labels = np.concatenate([truth.labels for truth in truths])
    ignore = np.concatenate([truth.ignore for truth in truths])
    empty = sum(not len(truth.boxes) for truth in truths)
    sizes = Counter(dataset.size(index) for index in range(len(dataset)))
    lines = [
        f"{report.split}: {len(dataset)} pictures ({empty} without objects), {len(boxes)} boxes, "
        f"{int(ignore.sum())} of them ignored"
    ]
    usual = ", ".join(f"{w} x {h} ({n})" for (w, h), n in sizes.most_common(3))
    lines.append(f"  sizes: {usual}{f' and {len(sizes) - 3} more' if len(sizes) > 3 else ''}")
    lines.append(f"  {'class':<20}{'boxes':>8}{'ignored':>9}{'pictures':>10}")
    for number, name in enumerate(dataset.classes):
        of_class = labels == number
        pictures = sum(bool((truth.labels == number).any()) for truth in truths)
        lines.append(f"  {name:<20}{of_class.sum():>8}{(of_class & ignore).sum():>9}{pictures:>10}")
    lines += _histogram(boxes)
    lines += _box_list("dropped", dataset.dropped, show_all)
    lines += _box_list("clipped", dataset.clipped, show_all)
    lines += _list("broken pictures", report.broken, show_all)
    lines += _list("same file twice", _twins(report.digests), show_all)
    return "\n".join(lines)


def shared_pictures(reports: Sequence[SplitReport]) -> list[str]:
    """Pictures that stand in two splits: by content, whatever they are called."""
    found = []
    for position, first in enumerate(reports):
        by_digest = {digest: name for name, digest in first.digests.items()}
        for second in reports[position + 1 :]:
            found += [
                f"{first.split} {by_digest[digest]} = {second.split} {name}"
                for name, digest in second.digests.items()
                if digest in by_digest
            ]
    return found


def _histogram(boxes: np.ndarray) -> list[str]:
    if not len(boxes):
        return []
    sides = np.sqrt((boxes[:, 2] - boxes[:, 0]).astype(float) * (boxes[:, 3] - boxes[:, 1]))
    counts = np.histogram(sides, _EDGES)[0]
    lines = ["  size of boxes (root of the area, pixels of the original)"]
    for low, high, count in zip(_EDGES, _EDGES[1:], counts, strict=False):
        name = f"{low:g} .. {high:g}" if np.isfinite(high) else f"{low:g} and more"
        lines.append(f"    {name:<14}{count:>8}  {'#' * round(40 * count / counts.max())}".rstrip())
    return lines


def _box_list(title: str, found: Sequence[DroppedBox], show_all: bool) -> list[str]:
    texts = [f"{item.image_id} [{', '.join(f'{value:g}' for value in item.box)}]: {item.reason}" for item in found]
    return _list(f"boxes {title}", texts, show_all)


def _twins(digests: dict[str, str]) -> list[str]:
    first: dict[str, str] = {}
    twins = []
    for name, digest in digests.items():
        if digest in first:
            twins.append(f"{first[digest]} = {name}")
        first.setdefault(digest, name)
    return twins


def _list(title: str, texts: Sequence[str], show_all: bool) -> list[str]:
    if not texts:
        return []
    shown = texts if show_all else texts[:_SHOWN]
    rest = [f"    ... and {len(texts) - len(shown)} more (--all)"] if len(shown) < len(texts) else []
    return [f"  {title}: {len(texts)}", *(f"    {text}" for text in shown), *rest]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m datasets.check", description="Read a whole data set once.")
    parser.add_argument("config", help="data YAML")
    parser.add_argument("--split", choices=("train", "val", "test"), action="append", help="default: all that there are")
    parser.add_argument("--limit", type=int, help="only the first pictures of each split")
    parser.add_argument("--all", action="store_true", help="print every dropped box and broken picture")
    options = parser.parse_args(arguments)
    config = load_data_config(options.config)
    splits = options.split or configured_splits(config)
    reports = []
    for split in splits:
        reports.append(check_split(config, split, options.limit))
        print(describe(reports[-1], options.all), flush=True)
    shared = shared_pictures(reports)
    if shared:
        print("\n".join(_list("pictures in two splits", shared, options.all)))
    broken = sum(len(report.broken) for report in reports)
    if broken:
        raise DataError(f"{broken} pictures are missing, broken or of another shape than their annotations, see above")
    print("every picture can be read")
    return 0


def configured_splits(config: DataConfig) -> list[Split]:
    """The splits that a configuration names.

    Raises:
        DataError: none.
    """
    if config.format == "scenes":
        return ["train", "val"]
    named = {"train": config.train, "val": config.val, "test": config.test}
    splits: list[Split] = [split for split, entries in named.items() if entries]  # type: ignore[misc]
    if not splits:
        raise DataError("the data YAML names no split: add train: and val:")
    return splits


if __name__ == "__main__":
    run(main)
