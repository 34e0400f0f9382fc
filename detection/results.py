"""What an evaluation found, as a table for people and as metrics.json for scripts."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from detection.evaluate import Evaluation

FORMAT_VERSION = 1
HEADINGS = {
    "wider_easy": "easy",
    "wider_medium": "medium",
    "wider_hard": "hard",
    "coco_ap": "AP",
    "voc_ap50_area": "AP50",
    "voc_ap50_11": "AP50, 11 points",
    "coco_ap_small": "small",
    "coco_ap_medium": "medium",
    "coco_ap_large": "large",
}  # the values of the table, in its order; metrics.json has all


def results_table(results: Sequence[Evaluation], title: str) -> Table:
    """One row a predictor. `bytes` says whether head maps and boxes equal the truth on every picture."""
    shown = [name for name in HEADINGS if any(name in result.metrics.values for result in results)]
    table = Table(title=title, title_justify="left")
    table.add_column("predictor", no_wrap=True)
    for name in shown:
        table.add_column(HEADINGS[name], justify="right", no_wrap=True)
    table.add_column("images/s", justify="right", no_wrap=True)
    if any(result.instructions is not None for result in results):
        table.add_column("instructions an image", justify="right", min_width=12)
    table.add_column("bytes")
    for result in results:
        cells = [result.name, *(_score(result.metrics.values.get(name, math.nan)) for name in shown)]
        cells.append(f"{result.images_per_second:.3g}" if result.images_per_second < 100 else f"{result.images_per_second:.0f}")
        if any(other.instructions is not None for other in results):
            cells.append("-" if result.instructions is None else f"{result.instructions:,.0f}")
        table.add_row(*cells, agreement(result))
    return table


def agreement(result: Evaluation) -> str:
    """`= int8`, `3 of 20 differ from int8`, or a dash where nothing was compared."""
    if not result.compared:
        return "-"
    if result.unequal:
        return f"{result.unequal} of {result.compared} differ from {result.truth}"
    return f"= {result.truth}"


def results_json(
    results: Sequence[Evaluation],
    source: str,
    models: Mapping[str, str],
    dataset: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Everything measured. `models`: file name -> sha256. A value that the data cannot define is null."""
    every_note = list(dict.fromkeys([*notes, *(note for result in results for note in result.metrics.notes)]))
    return {
        "format_version": FORMAT_VERSION,
        "source": source,
        "sha256": dict(models),
        "dataset": dict(dataset),
        "protocols": sorted({name for result in results for name in result.metrics.values}),
        "notes": every_note,
        "results": [_result_json(result) for result in results],
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _result_json(result: Evaluation) -> dict[str, Any]:
    return {
        "name": result.name,
        "values": _plain(result.metrics.values),
        "by_class": {name: _plain(values) for name, values in result.metrics.by_class.items()},
        "images": result.images,
        "images_per_second": _number(result.images_per_second),
        "instructions_per_image": result.instructions,
        "bytes": {
            "equal": None if not result.compared else result.unequal == 0,
            "truth": result.truth,
            "compared": result.compared,
            "unequal": result.unequal,
            "first_difference": None if result.difference is None else asdict(result.difference),
        },
    }


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def _score(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
