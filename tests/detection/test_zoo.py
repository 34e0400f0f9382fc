"""A run becomes a zoo folder, and its card says what the files beside it say."""

import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import eval as evaluation
import export
import train
from detection import demo_line, readme, runs, zoo
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
    low, high = host["intervals"]["voc_ap50_area"]
    assert f"{host['values']['voc_ap50_area']:.4f} [{low:.3f}, {high:.3f}]" in text and "3 of 3 pictures" in text
    assert f"--sram {plan['peak_sram']} --method mse " in text and "(4 iterations, 16 pictures an epoch)" in text
    assert f"{plan['peak_sram']:,} B" in readme.zoo_table(folder.parent)


def test_curves_go_back_to_where_the_training_began(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = f"train.init={folder.parents[1]}/tiny/weights/last.pt"
    settings = ("name=second", "train.epochs=2", "train.val_images=2", begun)
    door(monkeypatch, train.main, "--config", "configs/tiny.yaml", "--runs", tmp_path, *settings)
    packed = tmp_path / "zoo" / "second"
    door(monkeypatch, zoo.main, "pack", tmp_path / "second", packed)
    rows = runs.read_results(packed / "results.csv", 9)
    assert [(row["epoch"], row["iteration"]) for row in rows] == [(1, 4), (2, 8), (3, 12)]
    assert rows[0]["time"] < rows[1]["time"] < rows[2]["time"]
    first, second = (runs.read_results(run / "results.csv", 9) for run in (folder.parents[1] / "tiny", tmp_path / "second"))
    assert [row["train/box_loss"] for row in rows] == [row["train/box_loss"] for row in (*first, *second)]
    for name in ("plan.json", "verify.json"):
        shutil.copyfile(folder / name, packed / name)
    text = zoo.card(packed)
    assert "2 epochs of training (8 iterations, 16 pictures an epoch) after 1 of earlier parts" in text and "Dotted lines" in text
    assert "Dotted lines" not in zoo.card(folder)
    # The next one starts from the zoo folder and replaces it, packed twice; the second run is gone.
    shutil.rmtree(tmp_path / "second")
    settings = ("name=third", "train.epochs=2", "train.val_images=2", f"train.init={packed}/checkpoint.pt")
    door(monkeypatch, train.main, "--config", "configs/tiny.yaml", "--runs", tmp_path, *settings)
    for _ in range(2):
        door(monkeypatch, zoo.main, "pack", tmp_path / "third", packed)
    again = runs.read_results(packed / "results.csv", 9)
    assert again[:3] == rows and [row["epoch"] for row in again] == [1, 2, 3, 4, 5]


def test_examples_show_boxes_and_the_card_shows_examples(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "examples.png" not in zoo.card(folder)
    door(monkeypatch, zoo.main, "examples", folder, "--data", "configs/data/scenes.yaml", "--number", 3, "--score", 0.01)
    sheet = cv2.imread(str(folder / "examples.png"))
    assert (np.ptp(sheet.reshape(-1, 3), axis=0) > 100).all() and "![examples](examples.png)" in zoo.card(folder)


def test_a_classifier_has_no_boxes_to_show() -> None:
    with pytest.raises(ValueError, match="zoo/person is a classifier"):
        zoo.write_examples(Path("zoo/person"), "configs/data/person.yaml", 0.3, 2)


def test_the_card_says_sizes_and_classes_of_whole_splits_only(folder: Path) -> None:
    before = (folder / "metrics.json").read_text()
    measured = json.loads(before)
    assert measured["dataset"]["images"] == 3 and "by class" not in zoo.card(folder)
    name, values = next(iter(measured["results"][-1]["by_class"].items()))
    measured["dataset"]["images_in_split"] = 3
    values["voc_ap50_area"], measured["results"][-1]["values"]["input_ap50_large"] = 0.125, 0.375
    (folder / "metrics.json").write_text(json.dumps(measured))
    assert f"by class: {name} 0.125" in zoo.card(folder) and "96 px and more 0.375." in zoo.card(folder)
    (folder / "metrics.json").write_text(before)


def test_the_card_says_what_a_device_counted(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ("--data", "configs/data/scenes.yaml", "--on", "int8,board:host", "--limit", 3, "--resume", tmp_path / "journal")
    door(monkeypatch, evaluation.main, folder, *data, "--json", folder / "metrics_board.json")
    measured = json.loads((folder / "metrics_board.json").read_text())
    assert measured["device_ap"]["pictures"] == 3 and measured["latency"]["count"] is None
    door(monkeypatch, zoo.main, "card", folder)
    text = (folder / "README.md").read_text()
    assert "| board:host |" in text and f"counted AP50 {measured['device_ap']['ap50_q30'] / 2**30:.4f} itself" in text
    parts = [{"group": "operator", "name": name, "p50": p50, "p95": 9, "max": 9} for name, p50 in (("conv2d", 750), ("add", 50))]
    latency = {"target": "chip", "unit": "cycles", "count": {"p50": 1000, "p95": 2000, "max": 3000}, "parts": parts}
    latency |= {"stack_most": 960, "work_memory_most": 5000, "work_memory": 6000}
    measured |= {"latency": latency, "device_ap": {**measured["device_ap"], "ap50_q30": 1 << 29, "minus_sorted": -0.01}}
    (folder / "metrics_board.json").write_text(json.dumps(measured))
    text = zoo.card(folder)
    assert "counted AP50 0.5000 itself" in text and "by sorted scores it is 0.5100" in text
    assert "cycles a picture: p50 1,000, p95 2,000, most 3,000 (conv2d 75.0%, add 5.0%); stack 960 B" in text
    (folder / "metrics_board.json").unlink()


def test_the_demo_walks_the_whole_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    sizes = ("--images", 4, "--emulated", 1, "--calibration", 8)
    door(monkeypatch, demo_line.main, "--config", "configs/tiny.yaml", "--runs", tmp_path, *sizes, *SHORT)
    printed = capfd.readouterr().out
    for row in ("float", "int8", "host"):
        assert row in printed
    page = (tmp_path / "tiny" / "report.html").read_text()
    assert "Memory plan" in page and page.count("data:image/png;base64") >= 3
    assert len(list((tmp_path / "tiny" / "pictures").glob("*.png"))) == 4
