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
from detection.metrics.protocols import PROTOCOLS
from detection.metrics.resample import CONFIDENCE, interval
from detection.metrics.sizes import SIZES

FORMAT_VERSION = 1
HEADINGS = {
    "wider_easy": "WIDER easy",
    "wider_medium": "WIDER medium",
    "wider_hard": "WIDER hard",
    "coco_ap": "COCO AP",
    "voc_ap50_area": "VOC AP50",
    "voc_ap50_11": "VOC AP50, 11 points",
    "presence_accuracy": "accuracy",
    "presence_majority": "always the commoner answer",
    "presence_balanced": "balanced accuracy",
    "presence_ap": "presence AP",
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


def differences(results: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """How far each predictor is from the first one, value by value, with the interval of the difference.

    Resamples are paired: both predictors saw the same pictures. A predictor with the bytes of the first, or of one that
    is listed, is left out: its differences are none, or that one's.
    """
    rows, known = [], {id(result.resampled) for result in results[:1]}
    for result in results[1:]:
        if result.resampled and id(result.resampled) not in known:
            known.add(id(result.resampled))
            rows.append({"of": result.name, "from": results[0].name, "values": _differences(results[0], result)})
    return rows


def _differences(first: Evaluation, other: Evaluation) -> dict[str, dict[str, float | None]]:
    values = {}
    for name in first.resampled.keys() & other.resampled.keys():
        low, high = interval(other.resampled[name] - first.resampled[name])
        difference = other.metrics.values[name] - first.metrics.values[name]
        values[name] = {"difference": _number(difference), "low": _number(low), "high": _number(high)}
    return dict(sorted(values.items()))


def difference_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """`int8 - float: VOC AP50 -0.0012 [-0.0031, +0.0008]`, a line a row, for the values of the table."""
    lines = []
    for row in rows:
        cells = [
            f"{title} {value['difference']:+.4f} [{value['low']:+.4f}, {value['high']:+.4f}]"
            for name, title in HEADINGS.items()
            if (value := row["values"].get(name)) and None not in value.values()
        ]
        lines.append(f"{row['of']} - {row['from']}: {'; '.join(cells) or 'no value that both define'}")
    return lines


def size_lines(results: Sequence[Evaluation]) -> list[str]:
    """`int8, VOC AP50 by side at the network's input: 0-16 px 0.0596, ...`, a line a predictor that was asked."""
    lines = []
    for result in results:
        values = result.metrics.values
        cells = [f"{title} {_score(values[name])}" for name, title in SIZES.items() if name in values]
        if cells:
            lines.append(f"{result.name}, VOC AP50 by side in the network's input: {', '.join(cells)}")
    return lines


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
    names = sorted({name for result in results for name in result.metrics.values})
    return {
        "format_version": FORMAT_VERSION,
        "source": source,
        "sha256": dict(models),
        "dataset": dict(dataset),
        "protocols": {name: PROTOCOLS.get(name, name) for name in names},
        "notes": every_note,
        "bootstrap": _bootstrap_json(results),
        "results": [_result_json(result) for result in results],
        "differences": differences(results),
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
        "intervals": _intervals(result),
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


def _bootstrap_json(results: Sequence[Evaluation]) -> dict[str, Any] | None:
    """How intervals were made; null where there are none."""
    sizes = {len(values) for result in results for values in result.resampled.values()}
    return {"over": "images", "resamples": max(sizes), "confidence": CONFIDENCE, "seed": 0} if sizes else None


def _intervals(result: Evaluation) -> dict[str, list[float | None]]:
    return {name: [_number(bound) for bound in interval(values)] for name, values in sorted(result.resampled.items())}


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def _score(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
