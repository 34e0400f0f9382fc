"""The whole line, walked through its doors in under a minute: train, export, evaluate everywhere, draw boxes."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import cv2
import pytest

from detection.drop import DropError
from firmware.host import HostModel

ARM = shutil.which("arm-none-eabi-gcc") and shutil.which("qemu-system-arm")
EVERYWHERE = "float,int8,tflite,host" + (",emulator" if ARM else "")


def door(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: object) -> int:
    """Call a script's main as the command line would."""
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, arguments)])
    return importlib.import_module(script).main() or 0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny detector, trained for a few seconds and exported."""
    folder = tmp_path_factory.mktemp("line")
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert door(monkeypatch, "train", "--config", "configs/tiny.yaml", "--runs", folder) == 0
        (run,) = [path for path in folder.iterdir() if (path / "weights").is_dir()]
        assert door(monkeypatch, "export", run, "--out", run / "export", "--calibration", 16, "--sample", 8) == 0
    return run


def test_export_writes_a_proven_folder(run: Path) -> None:
    export = run / "export"
    assert {p.name for p in export.iterdir()} == {"model.tflite", "model.tess", "plan.json", "plan.png", "verify.json"}
    plan, verified = (json.loads((export / name).read_text()) for name in ("plan.json", "verify.json"))
    assert verified["equal"] and len(verified["agreeing"]) == 5
    assert plan["scheduled_macs"] == pytest.approx(plan["macs"] * (1 + plan["recompute"]))
    assert plan["peak_sram"] == sum(plan["peak_sram_parts"].values())
    assert {"peak_sram", "recompute", "schedule"} <= set(plan["front"][0])
    HostModel((export / "model.tess").read_bytes()).selftest()


def test_export_refuses_what_int8_spoils(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drop = json.loads((run / "export" / "verify.json").read_text())["drop"]
    assert drop["images"] == 8 and drop["points"] == pytest.approx(100 * (drop["float"] - drop["int8"]), abs=0.02)
    few = ("--calibration", 4, "--sample", 4, "--max-drop=-101")  # no network gains that much
    with pytest.raises(DropError, match="nothing was written. The layer that int8 hurts most is '.+' "):
        door(monkeypatch, "export", run, "--out", tmp_path / "export", *few)
    assert not (tmp_path / "export").exists()


def test_everyone_finds_the_same(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data, out = "configs/data/scenes.yaml", tmp_path / "metrics.json"
    limit = 4
    assert door(monkeypatch, "eval", run, "--data", data, "--on", EVERYWHERE, "--limit", limit, "--json", out) == 0
    found = {row["name"]: row for row in json.loads(out.read_text())["results"]}
    assert set(found) == set(EVERYWHERE.split(","))
    for name, row in found.items():
        if name not in ("float", "int8"):
            assert row["bytes"] == {"equal": True, "truth": "int8", "compared": limit, "unequal": 0, "first_difference": None}
        if name == "emulator":
            assert row["instructions_per_image"] > 100_000


def test_boxes_are_drawn(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import numpy as np

    picture = tmp_path / "scene.png"
    cv2.imwrite(str(picture), np.random.default_rng(0).integers(0, 256, (100, 140, 3), np.uint8))
    assert door(monkeypatch, "demo", run, picture, "--on", "host", "--out", tmp_path / "drawn") == 0
    assert cv2.imread(str(tmp_path / "drawn" / "scene.jpg")).shape == (100, 140, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing-here"], "no checkpoint there"),
        (["RUN", "--schedule", "patches"], "write auto, layer, stream, patch"),
        (["RUN", "--sram", "2K"], "the least that any schedule needs"),
        (["RUN", "--schedule", "layer", "--sram", "8K"], "peak_sram is"),
        (["RUN", "--target", "mps2-an50"], "did you mean 'mps2-an500'"),
        (["RUN", "--schedule", "patch:2x2@999"], "a patch stage of 999 operators"),
        (["RUN", "--outputs", "stem"], "--outputs cuts .tflite files"),
    ],
)
def test_export_refuses_and_writes_nothing(
    run: Path, arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arguments = [str(run) if a == "RUN" else a for a in arguments]
    with pytest.raises(ValueError, match=words):
        door(monkeypatch, "export", *arguments, "--calibration", 2, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("schedule", ["layer", "stream", "patch:2x2@4", "streamnet:2x2@4"])
def test_forced_schedules_give_the_same_bytes(run: Path, schedule: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The proof inside of export compares them; here, that the plan says what was asked for."""
    model = run / "export" / "model.tflite"
    assert door(monkeypatch, "export", model, "--schedule", schedule, "--out", tmp_path / "out", "--verification", 1) == 0
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    fused = [s for s in plan["segments"] if s["nodes"][1] - s["nodes"][0] > 1]
    assert len(fused) == (0 if schedule == "layer" else 1)
    assert (plan["recompute"] > 0) == ("2x2" in schedule)
    whole = json.loads((run / "export" / "verify.json").read_text())["outputs"]
    assert json.loads((tmp_path / "out" / "verify.json").read_text())["outputs"] == whole
