"""README.md: its tables come from artefacts, its commands and paths exist."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from detection.evaluate import Evaluation
from detection.metrics.common import Metrics
from detection.readme import ReadmeError, fill, make_table
from detection.results import results_json

ROOT = Path(__file__).resolve().parents[2]
WIDER = {"wider_easy": 0.8512, "wider_medium": 0.81, "wider_hard": 0.5504}
PLAN = {
    "input": [256, 320, 3],
    "peak_sram": 123456,
    "flash": {"model": 98304},
    "macs": 20_000_000,
    "recompute": 0.05,
    "sha256": {"model.tflite": "ff", "model.tess": "0123456789abcdef"},
}


def write_model(root: Path, metrics: dict[str, Any] | None, plan: dict[str, Any] | None) -> Path:
    folder = root / "zoo" / "face"
    folder.mkdir(parents=True)
    for file, content in (("metrics.json", metrics), ("plan.json", plan)):
        if content is not None:
            (folder / file).write_text(json.dumps(content), encoding="utf-8")
    return folder


def result(name: str, values: dict[str, float], compared: int = 0, unequal: int = 0) -> Evaluation:
    truth = "int8" if compared else None
    instructions = 4.5e7 if name.startswith("emulator") else None
    return Evaluation(name, Metrics(values, 400), 400, 1.0, instructions, compared, unequal, truth)


def measured(*results: Evaluation, sha256: str = "0123456789abcdef", images: int = 400) -> dict[str, Any]:
    """What eval.py writes."""
    dataset = {"name": "wider", "split": "val", "images": images, "images_in_split": 3226}
    return results_json(results, "runs/face", {"model.tess": sha256}, dataset)


def test_readme_is_current() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert fill(text) == text, "run `make readme`"


def test_readme_names_only_what_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    paths = r"configs/[\w./-]+\.yaml|[a-z]+\.py|[A-Z]+\.md|(?:datasets|detection|firmware)/\w*"
    named = set(re.findall(rf"(?<![\w/])(?:{paths})", text))
    assert {"train.py", "CHANGELOG.md", "SPEC.md"} <= named
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_zoo_row(tmp_path: Path) -> None:
    integer = {**WIDER, "wider_hard": 0.549}
    results = result("float", WIDER), result("int8", integer), result("host", integer, 400)
    folder = write_model(tmp_path, measured(*results), PLAN)
    few = measured(result("emulator:mps2-an500", integer, 20), images=20)
    (folder / "metrics_emulator.json").write_text(json.dumps(few), encoding="utf-8")
    assert make_table("zoo", tmp_path).splitlines()[-1] == (
        "| [face](zoo/face) | 320x256 | wider val, 400 of 3,226 | WIDER FACE easy / medium / hard | .851 / .810 / .550 "
        "| .851 / .810 / .549 | host (400), emulator (20) | 123,456 B | 98,304 B | 20.0 M +5.0 % | 45.0 M | `01234567` |"
    )


def test_differing_bytes_are_said(tmp_path: Path) -> None:
    write_model(tmp_path, measured(result("int8", {"coco_ap": 0.3}), result("host", {"coco_ap": 0.29}, 400, 3)), PLAN)
    assert "| - | .300 | host **differs** (3 of 400) |" in make_table("zoo", tmp_path)


INT8 = result("int8", WIDER)


@pytest.mark.parametrize(
    ("metrics", "plan", "message"),
    [
        (None, PLAN, r"metrics.json: no such artefact"),
        (measured(INT8), None, r"plan.json: no such artefact"),
        (measured(INT8), {**PLAN, "flash": {}}, r"plan.json: has no flash.model"),
        (measured(), PLAN, r"no predictor was evaluated"),
        (measured(result("int8", {"accuracy": 1.0})), PLAN, r"no protocol that the table knows; values: \['accuracy'\]"),
        (measured(INT8, sha256="fedcba9876543210"), PLAN, r"measured model.tess fedcba98, plan.json has 01234567"),
    ],
)
def test_missing_or_foreign_artefact_is_an_error(
    tmp_path: Path, metrics: dict[str, Any] | None, plan: dict[str, Any] | None, message: str
) -> None:
    write_model(tmp_path, metrics, plan)
    with pytest.raises(ReadmeError, match=message):
        make_table("zoo", tmp_path)


def test_benchmark_table(tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    content = {"columns": ["network", "peak B"], "rows": [["mbv2", 129024], ["x", None]], "note": "One picture."}
    (tmp_path / "benchmarks" / "memory.json").write_text(json.dumps(content), encoding="utf-8")
    table = "| network | peak B |\n|---|---|\n| mbv2 | 129,024 |\n| x | - |\n\nOne picture."
    assert make_table("benchmark:memory", tmp_path) == table


def test_fill_touches_only_tables_and_is_idempotent(tmp_path: Path) -> None:
    write_model(tmp_path, measured(INT8), PLAN)
    text = "before\n<!-- table:zoo -->\nold\n<!-- /table -->\nafter\n"
    once = fill(text, tmp_path)
    assert once.startswith("before\n<!-- table:zoo -->\n| model |") and once.endswith("|\n<!-- /table -->\nafter\n")
    assert fill(once, tmp_path) == once


def test_unknown_table_and_open_marker(tmp_path: Path) -> None:
    with pytest.raises(ReadmeError, match="no table 'nonsense'; there are: zoo, benchmark:NAME"):
        fill("<!-- table:nonsense -->\n<!-- /table -->", tmp_path)
    with pytest.raises(ReadmeError, match="has no <!-- /table --> line"):
        fill("<!-- table:zoo -->\n", tmp_path)
