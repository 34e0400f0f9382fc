"""Differences with their intervals: between predictors of one network, and between networks."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from detection import compare
from detection.checkpoint import load_checkpoint, save_checkpoint
from detection.evaluate import Evaluation
from detection.metrics.common import Metrics
from detection.predictors import PredictorError
from detection.results import difference_lines, differences, results_json, size_lines
from tests.detection.small_export import build, write_run


def evaluation(name: str, value: float, resampled: np.ndarray, **more) -> Evaluation:
    return Evaluation(name, Metrics({"voc_ap50_area": value}, 9), 9, 1.0, resampled={"voc_ap50_area": resampled}, **more)


def test_differences_are_from_the_first_and_only_of_what_differs() -> None:
    first = evaluation("float", 0.5, np.linspace(0.4, 0.6, 101))
    other = evaluation("int8", 0.48, first.resampled["voc_ap50_area"] - 0.02)
    same = Evaluation("host", other.metrics, 9, 1.0, resampled=other.resampled)
    rows = differences([first, other, same])
    assert [(row["of"], row["from"]) for row in rows] == [("int8", "float")]
    assert rows[0]["values"] == {"voc_ap50_area": {"difference": -0.02, "low": -0.02, "high": -0.02}}
    assert difference_lines(rows) == ["int8 - float: VOC AP50 -0.0200 [-0.0200, -0.0200]"]
    document = results_json([first, other, same], "x", {}, {})
    assert document["bootstrap"] == {"over": "images", "resamples": 101, "confidence": 0.95, "seed": 0}
    assert document["results"][0]["intervals"] == {"voc_ap50_area": [0.405, 0.595]}
    assert "2010" in document["protocols"]["voc_ap50_area"]


def test_undefined_differences_are_null_and_not_printed() -> None:
    nothing = np.full(5, np.nan)
    rows = differences([evaluation("a", float("nan"), nothing), evaluation("b", 0.5, nothing)])
    assert rows[0]["values"]["voc_ap50_area"] == {"difference": None, "low": None, "high": None}
    assert difference_lines(rows) == ["b - a: no value that both define"]
    assert differences([evaluation("a", 0.5, nothing)]) == []


def test_without_resamples_nothing_is_said() -> None:
    bare = Evaluation("a", Metrics({"voc_ap50_area": 0.5, "input_ap50_tiny": 0.25}, 9), 9, 1.0)
    document = results_json([bare, bare], "x", {}, {})
    assert (document["bootstrap"], document["differences"]) == (None, [])
    assert size_lines([bare]) == ["a, VOC AP50 by side in the network's input: 0-16 px 0.2500"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run, and one whose weights are a little off."""
    first = write_run(tmp_path_factory.mktemp("runs") / "first", build())
    second = first.with_name("second")
    shutil.copytree(first, second)
    saved = load_checkpoint(first / "weights" / "last.pt")
    saved.ema = {name: value * 1.05 if value.is_floating_point() else value for name, value in saved.ema.items()}
    save_checkpoint(second / "weights" / "last.pt", saved)
    return [first, second]


def test_two_networks(runs: list[Path], tmp_path: Path, monkeypatch, capsys) -> None:
    out = tmp_path / "compare.json"
    arguments = [*runs, "--data", runs[0] / "data.yaml", "--on", "float", "--resamples", 50, "--json", out]
    monkeypatch.setattr(sys, "argv", ["compare", *map(str, arguments)])
    assert compare.main() == 0
    assert f"{runs[1]} - {runs[0]}: COCO AP" in capsys.readouterr().out
    document = json.loads(out.read_text())
    assert [result["name"] for result in document["results"]] == [str(run) for run in runs]
    assert len(set(document["sha256"].values())) == 4  # both have the same two exported files
    assert [row["of"] for row in document["differences"]] == [str(runs[1])]
    monkeypatch.setattr(sys, "argv", ["compare", *map(str, [*runs, "--data", runs[0] / "data.yaml", "--on", "float,int8"])])
    with pytest.raises(PredictorError, match="one predictor at a time"):
        compare.main()
