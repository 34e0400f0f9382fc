"""README.md: its tables come from artefacts, its commands and paths exist."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from detection.readme import ReadmeError, fill, make_table

ROOT = Path(__file__).resolve().parents[2]
WIDER = {"wider_easy": 0.8512, "wider_medium": 0.81, "wider_hard": 0.5504}
PLAN = {
    "input": {"height": 256, "width": 320},
    "peak_sram": 123456,
    "model_size": 98304,
    "macs": 20_000_000,
    "scheduled_macs": 21_000_000,
    "sha256": "0123456789abcdef",
}


def write_model(root: Path, metrics: dict[str, Any] | None, plan: dict[str, Any] | None, name: str = "face") -> None:
    folder = root / "zoo" / name
    folder.mkdir(parents=True)
    for file, content in (("metrics.json", metrics), ("plan.json", plan)):
        if content is not None:
            (folder / file).write_text(json.dumps(content), encoding="utf-8")


def predictors(**values: dict[str, float]) -> dict[str, Any]:
    return {"predictors": {name: {"values": found} for name, found in values.items()}}


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
    write_model(tmp_path, predictors(float=WIDER, int8=integer, host=integer), PLAN)
    row = make_table("zoo", tmp_path).splitlines()[-1]
    assert row == (
        "| [face](zoo/face) | 320x256 | WIDER FACE easy / medium / hard | .851 / .810 / .550 "
        "| .851 / .810 / .549 (int8, host) "
        "| 123,456 B | 98,304 B | 21.0 M (+5.0 %) | `01234567` |"
    )


def test_integer_predictors_that_disagree_are_shown_apart(tmp_path: Path) -> None:
    write_model(tmp_path, predictors(int8={"coco_ap": 0.3}, emulator={"coco_ap": 0.29}), PLAN)
    assert "| - | .300 (int8); .290 (emulator) |" in make_table("zoo", tmp_path)


@pytest.mark.parametrize(
    ("metrics", "plan", "message"),
    [
        (None, PLAN, r"metrics.json: no such artefact"),
        (predictors(int8=WIDER), None, r"plan.json: no such artefact"),
        (predictors(int8=WIDER), {**PLAN, "peak_sram": None}, r"plan.json: has no peak_sram"),
        (predictors(), PLAN, r"no predictor was evaluated"),
        (predictors(int8={"accuracy": 1.0}), PLAN, r"no protocol that the table knows; values: \['accuracy'\]"),
    ],
)
def test_missing_artefact_is_an_error(
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
    write_model(tmp_path, predictors(int8=WIDER), PLAN)
    text = "before\n<!-- table:zoo -->\nold\n<!-- /table -->\nafter\n"
    once = fill(text, tmp_path)
    assert once.startswith("before\n<!-- table:zoo -->\n| model |") and once.endswith("|\n<!-- /table -->\nafter\n")
    assert fill(once, tmp_path) == once


def test_unknown_table_and_open_marker(tmp_path: Path) -> None:
    with pytest.raises(ReadmeError, match="no table 'nonsense'; there are: zoo, benchmark:NAME"):
        fill("<!-- table:nonsense -->\n<!-- /table -->", tmp_path)
    with pytest.raises(ReadmeError, match="has no <!-- /table --> line"):
        fill("<!-- table:zoo -->\n", tmp_path)
