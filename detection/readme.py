"""Fill the tables of README.md from artefacts, so that no number in it is ever typed: `python -m detection.readme`.

A table stands between `<!-- table:NAME -->` and `<!-- /table -->`; what is between them is rewritten. `--check` writes
nothing and fails where README.md is not what the artefacts say. An artefact that is missing is an error, not a dash.

* `zoo`: one row for every folder of zoo/, from its `plan.json` (export.py) and `metrics*.json` (eval.py).
* `benchmark:NAME`: `benchmarks/NAME.json`, which holds `{"columns": [...], "rows": [[...], ...]}` and perhaps a `note`.
"""

import argparse
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import cli

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- table:(?P<name>[\w:.-]+) -->\n)(?P<old>.*?)(<!-- /table -->)", re.DOTALL)
ZOO_COLUMNS = (
    "model", "input", "pictures", "protocol", "float", "int8", "same bytes as int8 (pictures)", "peak SRAM", "model.tess",
    "MACs", "instructions", "sha256",
)  # fmt: skip
# The first family that an evaluation holds is the model's protocol: (its name, the values that stand in the table).
PROTOCOLS = (
    ("WIDER FACE easy / medium / hard", ("wider_easy", "wider_medium", "wider_hard")),
    ("VOC AP50, 11 points", ("voc_ap50_11",)),
    ("VOC AP50", ("voc_ap50_area",)),
    ("COCO AP", ("coco_ap",)),
    (
        "present or not: accuracy / that of always the commoner answer / balanced / AP",
        ("presence_accuracy", "presence_majority", "presence_balanced", "presence_ap"),
    ),
)


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
    """The row of one zoo folder.

    Scores are those of metrics.json; the emulator, which is slow, may have been asked about fewer pictures: byte
    comparisons and instruction counts are taken from every metrics*.json of the folder. All of them must have measured
    the model.tess that plan.json describes.
    """
    plan, metrics = Artefact(folder / "plan.json"), Artefact(folder / "metrics.json")
    evaluations = [metrics, *(Artefact(path) for path in sorted(folder.glob("metrics?*.json")))]
    sha256 = plan.get("sha256.model.tess")
    for evaluation in evaluations:
        if (measured := evaluation.get("sha256").get("model.tess", sha256)) != sha256:
            raise ReadmeError(f"{evaluation.path}: measured model.tess {measured[:8]}, plan.json has {sha256[:8]}")
    protocol, names = protocol_of(metrics)
    scores = {result["name"]: result["values"] for result in metrics.get("results")}
    results = [result for evaluation in evaluations for result in evaluation.get("results")]
    instructions = [result["instructions_per_image"] for result in results if result["instructions_per_image"]]
    height, width, _ = plan.get("input")
    extra = plan.get("recompute")
    return [
        f"[{folder.name}](zoo/{folder.name})",
        f"{width}x{height}",
        show_pictures(metrics.get("dataset")),
        protocol,
        show_scores(scores.get("float"), names),
        show_scores(next((values for name, values in scores.items() if name != "float"), None), names),
        show_agreement(results),
        f"{plan.get('peak_sram'):,} B",
        f"{plan.get('flash.model'):,} B",
        f"{plan.get('macs') / 1e6:.1f} M" + (f" {100 * extra:+.1f} %" if round(1000 * extra) else ""),
        f"{instructions[-1] / 1e6:,.1f} M" if instructions else "-",
        f"`{sha256[:8]}`",
    ]


def protocol_of(metrics: "Artefact") -> tuple[str, tuple[str, ...]]:
    """The first protocol whose values every predictor has."""
    results = metrics.get("results")
    if not results:
        raise ReadmeError(f"{metrics.path}: no predictor was evaluated; run eval.py again")
    for title, names in PROTOCOLS:
        if all(name in result["values"] for result in results for name in names):
            return title, names
    values = sorted(results[0]["values"])
    raise ReadmeError(f"{metrics.path}: no protocol that the table knows; values: {values}")


def show_pictures(dataset: Mapping[str, Any]) -> str:
    """`wider val, 3,226`, or `wider val, 400 of 3,226` for a subset: figures of a subset are not the data set's."""
    images, whole = dataset["images"], dataset["images_in_split"]
    return f"{dataset['name']} {dataset['split']}, {images:,}" + (f" of {whole:,}" if images != whole else "")


def show_scores(values: Mapping[str, float | None] | None, names: tuple[str, ...]) -> str:
    """`.672 / .620 / .376`, with a dash for a predictor that was not asked or a value that the data cannot define."""
    if values is None:
        return "-"
    return " / ".join("-" if values[name] is None else f"{values[name]:.3f}".removeprefix("0") for name in names)


def show_agreement(results: Sequence[Mapping[str, Any]]) -> str:
    """`host (3,226), emulator (20)`, and in so many words where bytes differ."""
    cells = []
    for result in results:
        compared, unequal = result["bytes"]["compared"], result["bytes"]["unequal"]
        if compared:
            name = result["name"].partition(":")[0]
            cells.append(f"{name} ({compared:,})" if not unequal else f"{name} **differs** ({unequal:,} of {compared:,})")
    return ", ".join(cells) or "-"


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
    """A JSON file whose values are asked for by name; a missing file or value is an error that names both."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ReadmeError(f"{path}: no such artefact; README.md's table needs it (export.py, eval.py)") from None
        except ValueError as error:
            raise ReadmeError(f"{path}: not JSON: {error}") from None

    def get(self, name: str) -> Any:
        """A value by its dotted name; file names keep their dots (`sha256.model.tess`)."""
        value: Any = self.content
        rest = name
        while rest and isinstance(value, dict):
            part = rest if rest in value else rest.partition(".")[0]
            value, rest = value.get(part), rest[len(part) + 1 :]
        if rest or value is None:
            raise ReadmeError(f"{self.path}: has no {name}")
        return value


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
