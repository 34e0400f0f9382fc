"""The folder of a run, with the file names that Ultralytics users know; see README for the list."""

import csv
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from detection.config import Config, ConfigError, load_saved_config
from detection.distributed import World

COLUMNS = (
    "epoch",
    "time",  # seconds of training so far
    "train/box_loss",
    "train/obj_loss",
    "train/cls_loss",
    "train/teacher_loss",
    "train/teacher_box_loss",
    "metrics/mAP50(B)",
    "lr/pg0",
    "iteration",
    "images_per_s",
)


def new_run(root: str | Path, config: Config, world: World) -> Path:
    """Create `root/name`, or `root/name2`, `name3`, ... and write args.yaml into it. Only the main process does so."""
    number = 1
    if not world.is_main:
        return Path(root) / config.name  # it writes nothing
    while True:
        path = Path(root) / (config.name if number == 1 else f"{config.name}{number}")
        try:
            path.mkdir(parents=True)
            break
        except FileExistsError:
            number += 1
    (path / "weights").mkdir()
    write_args(path, config)
    return path


def write_args(run: Path, config: Config) -> None:
    """args.yaml: what the run is trained with, settings changed on resuming included."""
    write_text(run / "args.yaml", to_yaml(config))


def to_yaml(config: Config) -> str:
    """Every setting with its value; reads back to the same configuration."""
    return yaml.safe_dump(config.as_dict(), sort_keys=False, width=120)


def show_cache(done: int, total: int) -> None:
    """Progress of the decoding."""
    if sys.stderr.isatty() or done == total:
        print(f"\rdecoded {done} of {total} pictures", end="\n" if done == total else "", file=sys.stderr, flush=True)


def read_run(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration of an existing run, with settings changed by `overrides`.

    Raises:
        ConfigError: no run there.
    """
    file = Path(path) / "args.yaml"
    if not file.is_file():
        raise ConfigError(f"{path} is no run folder: {file} is missing")
    return load_saved_config(file, overrides)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_results(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """results.csv: one line an epoch, an empty cell where nothing was measured."""
    lines = [",".join(COLUMNS)]
    lines += [",".join(_cell(row.get(column, math.nan)) for column in COLUMNS) for row in rows]
    write_text(path, "\n".join(lines) + "\n")


def read_results(path: Path, epochs: float) -> list[dict[str, float]]:
    """The lines of results.csv up to `epochs`; later ones belong to work that a resumed run repeats."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = [
            {key: float(value) if value else math.nan for key, value in row.items()} for row in csv.DictReader(file)
        ]
    return [row for row in rows if row["epoch"] <= epochs]


def history(run: Path, epochs: float) -> list[dict[str, float]]:
    """The lines that led to `epochs` of a run: first those of the runs before it (`keep_history`). Each run counts anew."""
    return [*read_results(run / "earlier.csv", math.inf), *read_results(run / "results.csv", epochs)]


def keep_history(run: Path, init: Path, epochs: float) -> None:
    """earlier.csv of a run: the lines that led to the weights `init` that it starts from, a run's after `epochs`, or the zoo's.
    That folder may be gone when this run ends, or be the one in the zoo that it replaces."""
    folder = init.resolve().parent
    rows = history(folder.parent, epochs) if folder.name == "weights" else history(folder, math.inf)
    if rows:
        write_results(run / "earlier.csv", rows)


def join_results(rows: Sequence[Mapping[str, float]]) -> tuple[list[dict[str, float]], list[int]]:
    """Lines of runs, each of which began where the one before ended, counted on; and the epochs at which one ended."""
    joined: list[dict[str, float]] = []
    seams: list[int] = []
    start: dict[str, float] = {"epoch": 0, "time": 0, "iteration": 0}
    for last, row in zip([None, *rows], rows, strict=False):
        if last is not None and row["epoch"] <= last["epoch"]:
            start = {column: joined[-1][column] for column in start}
            seams.append(int(start["epoch"]))
        joined.append({**row, **{column: row[column] + before for column, before in start.items()}})
    return joined, seams


def _cell(value: float) -> str:
    if math.isnan(value):
        return ""
    return str(int(value)) if float(value).is_integer() else f"{value:.6g}"
