"""Fill the tables of README.md from artefacts, so that no number in it is ever typed: `python -m detection.readme`.

A table stands between `<!-- table:NAME -->` and `<!-- /table -->`; what is between them is rewritten. `--check` writes
nothing and fails where README.md is not what the artefacts say. An artefact that is missing is an error, not a dash.

* `zoo`: one row for every folder of zoo/, from its `metrics.json` (eval.py) and `plan.json` (export.py).
* `benchmark:NAME`: `benchmarks/NAME.json`, which holds `{"columns": [...], "rows": [[...], ...]}` and perhaps a `note`.
"""

import argparse
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detection import cli

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- table:(?P<name>[\w:.-]+) -->\n)(?P<old>.*?)(<!-- /table -->)", re.DOTALL)
ZOO_COLUMNS = ("model", "input", "protocol", "float", "int8 on every machine", "peak SRAM", "model file", "MACs", "sha256")
# The first family that an evaluation holds is the model's protocol: (its name, the values that stand in the table).
PROTOCOLS = (
    ("WIDER FACE easy / medium / hard", ("wider_easy", "wider_medium", "wider_hard")),
    ("VOC AP50, 11 points", ("voc_ap50_11",)),
    ("VOC AP50", ("voc_ap50_area",)),
    ("COCO AP", ("coco_ap",)),
)
INTEGER_PREDICTORS = ("int8", "tflite", "host", "emulator", "board")


class ReadmeError(ValueError):
    """A table without its artefact, an artefact without a value, or a README.md that is not current."""


def fill(text: str, root: Path = ROOT) -> str:
    """README.md's text with every table made anew. Raises ReadmeError for an unknown table or a missing artefact."""

    def make(match: re.Match[str]) -> str:
        return f"{match[1]}{make_table(match['name'], root)}\n{match[4]}"

    if text.count("<!-- table:") != len(BLOCK.findall(text)):
        raise ReadmeError("README.md: a <!-- table:NAME --> line has no <!-- /table --> line after it")
    return BLOCK.sub(make, text)


def make_table(name: str, root: Path) -> str:
    """The lines of one table, without the markers."""
    kind, _, detail = name.partition(":")
    if kind == "zoo":
        return zoo_table(root / "zoo")
    if kind == "benchmark" and detail:
        return benchmark_table(root / "benchmarks" / f"{detail}.json")
    raise ReadmeError(f"README.md: there is no table {name!r}; there are: zoo, benchmark:NAME")


def zoo_table(zoo: Path) -> str:
    """One row a model, in the order of the folders' names."""
    folders = sorted(path for path in zoo.glob("*") if path.is_dir() and not path.name.startswith("."))
    return markdown_table(ZOO_COLUMNS, [zoo_row(folder) for folder in folders])


def zoo_row(folder: Path) -> list[str]:
    """The row of one zoo folder; the int8 cell says so where integer predictors did not agree to the byte."""
    plan, metrics = Artefact(folder / "plan.json"), Artefact(folder / "metrics.json")
    results = predictor_results(metrics)
    protocol, names = protocol_of(metrics, results)
    float_values = next((values for name, values in results.items() if name == "float"), None)
    integers = {name: values for name, values in results.items() if name in INTEGER_PREDICTORS}
    height, width = plan.size("input", "input_size", "network.input")
    macs = plan.number("scheduled_macs", "cost.scheduled_macs")
    extra = macs / plan.number("macs", "cost.macs") - 1
    return [
        f"[{folder.name}](zoo/{folder.name})",
        f"{width}x{height}",
        protocol,
        show_values(float_values, names),
        show_integers(integers, names),
        f"{plan.number('peak_sram', 'cost.peak_sram', 'sram.peak'):,.0f} B",
        f"{plan.number('model_size', 'flash', 'model_bytes', 'cost.flash'):,.0f} B",
        f"{macs / 1e6:.1f} M" + (f" ({100 * extra:+.1f} %)" if round(1000 * extra) else ""),
        f"`{plan.text('sha256', 'model_sha256')[:8]}`",
    ]


def predictor_results(metrics: "Artefact") -> dict[str, Mapping[str, Any]]:
    """Predictor name -> metric name -> value."""
    found = metrics.get("predictors", "results")
    if isinstance(found, list):
        found = {str(entry.get("name")): entry for entry in found}
    results = {name: entry.get("values", entry.get("metrics", entry)) for name, entry in found.items()}
    if not results:
        raise ReadmeError(f"{metrics.path}: no predictor was evaluated; run eval.py again")
    return results


def protocol_of(metrics: "Artefact", results: Mapping[str, Mapping[str, Any]]) -> tuple[str, tuple[str, ...]]:
    """The first protocol whose values every predictor has."""
    for title, names in PROTOCOLS:
        if all(name in values for values in results.values() for name in names):
            return title, names
    raise ReadmeError(f"{metrics.path}: no protocol that the table knows; values: {sorted(next(iter(results.values())))}")


def show_values(values: Mapping[str, Any] | None, names: tuple[str, ...]) -> str:
    """`.672 / .620 / .376`, or a dash where the predictor was not evaluated."""
    return "-" if values is None else " / ".join(f"{values[name]:.3f}".removeprefix("0") for name in names)


def show_integers(integers: Mapping[str, Mapping[str, Any]], names: tuple[str, ...]) -> str:
    """One value where all integer predictors agree (with the predictors' names), otherwise each one's."""
    by_value: dict[str, list[str]] = {}
    for predictor, values in integers.items():
        by_value.setdefault(show_values(values, names), []).append(predictor)
    return "; ".join(f"{value} ({', '.join(predictors)})" for value, predictors in by_value.items()) or "-"


def benchmark_table(path: Path) -> str:
    """A table that a benchmark wrote as columns and rows."""
    document = Artefact(path)
    columns, rows = document.get("columns"), document.get("rows")
    if any(len(row) != len(columns) for row in rows):
        raise ReadmeError(f"{path}: a row does not have {len(columns)} cells")
    table = markdown_table(columns, [[show_cell(cell) for cell in row] for row in rows])
    note = document.content.get("note")
    return f"{table}\n\n{note}" if note else table


def show_cell(cell: Any) -> str:
    """Integers with thousands separators, a missing value as a dash, everything else as it is."""
    if cell is None:
        return "-"
    return f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)


def markdown_table(columns: list[str] | tuple[str, ...], rows: list[list[str]]) -> str:
    """A pipe table."""
    head = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return "\n".join(head + [f"| {' | '.join(row)} |" for row in rows])


class Artefact:
    """A JSON file whose values are asked for by dotted names, the first that is there; a missing one is an error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ReadmeError(f"{path}: no such artefact; README.md's table needs it (export.py, eval.py)") from None
        except ValueError as error:
            raise ReadmeError(f"{path}: not JSON: {error}") from None

    def get(self, *names: str) -> Any:
        for name in names:
            value: Any = self.content
            for part in name.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if value is not None:
                return value
        raise ReadmeError(f"{self.path}: has no {' or '.join(names)}")

    def number(self, *names: str) -> float:
        value = self.get(*names)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ReadmeError(f"{self.path}: {names[0]} is {value!r}, not a number")
        return value

    def text(self, *names: str) -> str:
        return str(self.get(*names))

    def size(self, *names: str) -> tuple[int, int]:
        """Height and width of the network's input, from `{"height":, "width":}` or `[h, w, ...]`."""
        value = self.get(*names)
        if isinstance(value, dict):
            return int(value["height"]), int(value["width"])
        return int(value[0]), int(value[1])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m detection.readme", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where README.md is not current")
    options = parser.parse_args()
    path = ROOT / "README.md"
    old = path.read_text(encoding="utf-8")
    new = fill(old)
    if old == new:
        print("README.md is current")
    elif options.check:
        raise ReadmeError("README.md is not what the artefacts say: run `make readme`")
    else:
        temporary = path.with_suffix(".md.part")
        temporary.write_text(new, encoding="utf-8")
        os.replace(temporary, path)
        print("README.md: tables rewritten")
    return 0


if __name__ == "__main__":
    cli.run(main)
