"""A run becomes a zoo folder, and its card says what the files beside it say."""

import json
import sys
from pathlib import Path

import pytest
import torch

import eval as evaluation
import export
import train
from detection import demo_line, readme, zoo
from detection.checkpoint import load_checkpoint

SHORT = ("train.epochs=1", "train.val_images=2")


def door(monkeypatch: pytest.MonkeyPatch, main, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["door", *map(str, arguments)])
    assert (main() or 0) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("zoo")
    with pytest.MonkeyPatch.context() as patch:
        door(patch, train.main, "--config", "configs/tiny.yaml", "--runs", root, *SHORT)
        folder = root / "zoo" / "tiny"
        door(patch, zoo.main, "pack", root / "tiny", folder, "decode.max_candidates=32")
        door(patch, export.main, folder, "--out", folder, "--calibration", 4, "--verification", 1)
        data = ("--data", "configs/data/scenes.yaml", "--on", "float,int8,host", "--limit", 3)
        door(patch, evaluation.main, folder, *data, "--json", folder / "metrics.json")
    return folder


def test_packing_keeps_the_weights_and_drops_the_training(folder: Path) -> None:
    packed, run = load_checkpoint(folder / "checkpoint.pt"), load_checkpoint(folder.parents[1] / "tiny/weights/last.pt")
    assert not packed.model and not packed.optimizer and packed.config["decode"]["max_candidates"] == 32
    assert packed.config["data"] == "configs/data/scenes.yaml"
    assert set(packed.ema) == set(run.ema) and all(torch.equal(packed.ema[name], run.ema[name]) for name in run.ema)


def test_the_card_says_what_the_files_say(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "note.md").write_text("A note by hand.\n")
    door(monkeypatch, zoo.main, "card", folder)
    text = (folder / "README.md").read_text()
    plan = json.loads((folder / "plan.json").read_text())
    host = next(r for r in json.loads((folder / "metrics.json").read_text())["results"] if r["name"] == "host")
    assert f"Peak SRAM {plan['peak_sram']:,} B" in text and "A note by hand." in text
    assert f"{host['values']['voc_ap50_area']:.4f}" in text and "3 of 3 pictures" in text
    assert f"{plan['peak_sram']:,} B" in readme.zoo_table(folder.parent)


def test_the_demo_walks_the_whole_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    sizes = ("--images", 4, "--emulated", 1, "--calibration", 8)
    door(monkeypatch, demo_line.main, "--config", "configs/tiny.yaml", "--runs", tmp_path, *sizes, *SHORT)
    printed = capfd.readouterr().out
    for row in ("float", "int8", "host"):
        assert row in printed
    page = (tmp_path / "tiny" / "report.html").read_text()
    assert "Memory plan" in page and page.count("data:image/png;base64") >= 3
    assert len(list((tmp_path / "tiny" / "pictures").glob("*.png"))) == 4
