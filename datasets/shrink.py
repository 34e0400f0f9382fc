"""A smaller copy of a data set: pictures shrunk, annotation files as published, original_sizes.csv beside them.

    python -m datasets.shrink configs/data/voc9.yaml data/voc9_320 --long-side 320

Can be stopped and started again; a file is either whole or not there. `data.yaml` in the copy opens it.
"""

import argparse
import csv
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import yaml

from datasets.catalog import open_dataset
from datasets.check import configured_splits
from datasets.cli import run, say
from datasets.config import DataConfig, DataError, Split, load_data_config
from datasets.dataset import ImageDataset, Record
from datasets.images import ORIGINAL_SIZES, decode_image, image_size
from datasets.yolo import label_path

_NOTE = "shrink.json"


def shrink(config: DataConfig, out: Path, long_side: int, quality: int = 90, webp: bool = False) -> int:
    """Copy all splits of a data set; returns the number of pictures in the copy.

    Args:
        long_side: pixels; smaller pictures are copied as they are.
        quality: of JPEG and WebP, 1 .. 100.
        webp: store WebP under the published names (a third smaller); read by content.

    Raises:
        DataError: generated scenes, a copy inside the original, a copy begun with other settings, a broken picture.
    """
    if config.format == "scenes":
        raise DataError("generated scenes have no files to shrink: set scenes.width and scenes.height")
    if long_side < 16 or not 1 <= quality <= 100:
        raise DataError(f"long side {long_side} must be 16 or more, quality {quality} within 1 .. 100")
    root, out = config.path, out.resolve()
    if out == root or root in out.parents or out in root.parents:
        raise DataError(f"{out} and the data set at {root} lie inside each other: choose another folder")
    splits = configured_splits(config)
    records = {record.path: record for split in splits for record in _records(config, split)}
    exif = config.format == "yolo"
    _begin(out, {"long_side": long_side, "quality": quality, "webp": webp})
    for path in annotation_files(config, splits, list(records)):
        _write(out / _below(root, path), path.read_bytes())

    def work(record: Record) -> None:
        target = out / _below(root, record.path)
        if not target.is_file():
            _write(target, _encode(record.path, long_side, quality, webp, exif))

    with ThreadPoolExecutor(2) as pool:
        for done, _ in enumerate(pool.map(work, records.values()), start=1):
            if done % 1000 == 0:
                say(f"{done} of {len(records)} pictures")
    _write(out / ORIGINAL_SIZES, _sizes_csv(root, records.values()))
    _write(out / "data.yaml", _data_yaml(config))
    return len(records)


def annotation_files(config: DataConfig, splits: Sequence[Split], images: Sequence[Path]) -> Iterator[Path]:
    """Every file of a data set that is no picture but is needed to read (or, for WIDER FACE, to score) it."""
    root = config.path
    entries = [entry for split in splits for entry in config.entries(split)]
    if config.format == "wider":
        for entry in entries:
            yield root / "wider_face_split" / f"wider_face_{entry}_bbx_gt.txt"
        yield from sorted((root / "eval_tools" / "ground_truth").glob("*.mat"))
    elif config.format == "voc":
        for entry in entries:
            folder, _, image_set = entry.rpartition("/")
            yield root / folder / "ImageSets" / "Main" / f"{image_set}.txt"
        for image in images:
            yield image.parent.parent / "Annotations" / f"{image.stem}.xml"
    elif config.format == "coco":
        yield from (root / entry.rpartition(":")[0] for entry in entries)
    else:
        yield from (root / entry for entry in entries if entry.endswith(".txt"))
        yield from (label for label in map(label_path, images) if label.is_file())


def _records(config: DataConfig, split: Split) -> tuple[Record, ...]:
    dataset = open_dataset(config, split)
    assert isinstance(dataset, ImageDataset)
    return dataset.records


def _begin(out: Path, settings: dict[str, int | bool]) -> None:
    """Refuse to mix two sizes in one folder."""
    note = out / _NOTE
    if note.is_file():
        try:
            before = json.loads(note.read_text())
        except json.JSONDecodeError:
            before = None
        if before != settings:
            raise DataError(f"{out} was begun with {before}, now {settings}: choose another folder or remove it")
    elif out.is_dir() and any(out.iterdir()):
        raise DataError(f"{out} is not empty and no copy made by datasets.shrink: choose another folder")
    _write(note, json.dumps(settings).encode())


def _encode(path: Path, long_side: int, quality: int, webp: bool, exif: bool) -> bytes:
    width, height = image_size(path, exif)
    if max(width, height) <= long_side and not webp:
        return path.read_bytes()
    image = decode_image(path, exif)
    height, width = image.shape[:2]
    scale = min(1.0, long_side / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size != (width, height):
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    suffix = ".webp" if webp else path.suffix.lower()
    flags = {
        ".jpg": [cv2.IMWRITE_JPEG_QUALITY, quality],
        ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, quality],
        ".webp": [cv2.IMWRITE_WEBP_QUALITY, quality],
    }.get(suffix, [])
    done, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)
    if not done:
        raise DataError(f"{path}: cannot be encoded as {suffix}")
    return data.tobytes()


def _sizes_csv(root: Path, records: Sequence[Record]) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("image", "width", "height"))
    rows.writerows((_below(root, r.path).as_posix(), r.width, r.height) for r in records)
    return text.getvalue().encode()


def _data_yaml(config: DataConfig) -> bytes:
    data = config.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    data["path"] = "."
    return yaml.safe_dump(data, sort_keys=False).encode()


def _below(root: Path, path: Path) -> Path:
    try:
        return Path(os.path.normpath(path)).relative_to(root)
    except ValueError:
        raise DataError(f"{path} lies outside of the data set's folder {root}: its place in the copy is unknown") from None


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m datasets.shrink", description="A smaller copy of a data set.")
    parser.add_argument("config", help="data YAML")
    parser.add_argument("out", type=Path, help="folder of the copy")
    parser.add_argument("--long-side", type=int, default=640, help="pixels (default 640)")
    parser.add_argument("--quality", type=int, default=90, help="of JPEG and WebP (default 90)")
    parser.add_argument("--webp", action="store_true", help="store WebP under the published names")
    options = parser.parse_args(arguments)
    count = shrink(load_data_config(options.config), options.out, options.long_side, options.quality, options.webp)
    used = sum(file.stat().st_size for file in options.out.rglob("*") if file.is_file())
    free = shutil.disk_usage(options.out).free
    print(f"{count} pictures in {options.out}: {used / 1e6:.0f} MB ({free / 1e9:.1f} GB left); open {options.out}/data.yaml")
    return 0


if __name__ == "__main__":
    run(main)
