"""The door `train.py`: wrong calls end with one line, a run that was killed goes on to the same weights."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from datasets import cli
from detection.checkpoint import load_checkpoint
from detection.config import load_config
from detection.runs import read_results, read_run, to_yaml

ROOT = Path(__file__).parents[2]
TINY = "configs/tiny.yaml"
FILES = {"args.yaml", "results.csv", "results.png", "labels.jpg", "train_batch0.jpg", "val_batch0_labels.jpg",
         "val_batch0_pred.jpg", "PR_curve.png", "weights"}  # fmt: skip
# Dies in the middle of the fifth save, as a power cut would have it: half of the file is on disk.
KILLED = """
import os, signal, sys, torch
import train
from datasets import cli
from detection import checkpoint

save, saves = torch.save, []

def cut(content, file):
    saves.append(1)
    if len(saves) < 5:
        return save(content, file)
    file.write(b"half a checkpoint")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

checkpoint.torch.save = cut
train.plots.start_plots = lambda trainer: None
cli.run(train.main)
"""




@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Call train.py without the seconds that a new process spends on importing torch: (exit code, stdout, stderr)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.run(train.main)
        return ended.value.code, *capfd.readouterr()

    return call


def refused(result: tuple[int, str, str], *words: str) -> None:
    code, _, err = result
    assert code == 1 and err.startswith("error: ") and err.count("\n") == 1, err
    assert all(word in err for word in words), err


def test_a_real_process_ends_with_one_line() -> None:
    command = [sys.executable, "train.py", "--config", TINY, "train.epohcs=3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: train.epohcs is not a setting (did you mean train.epochs?)\n"


def test_print_config_reads_back_and_makes_nothing(door, tmp_path: Path) -> None:
    code, out, err = door("--config", TINY, "--print-config", "--runs", str(tmp_path / "runs"), "train.epochs=7")
    assert (code, err) == (0, "") and not (tmp_path / "runs").exists()
    assert out == to_yaml(load_config(ROOT / TINY, ["train.epochs=7"])) and "\ndata: configs/data/scenes.yaml\n" in out
    (tmp_path / "args.yaml").write_text(out)
    assert read_run(tmp_path) == load_config(ROOT / TINY, ["train.epochs=7"])


def test_wrong_calls_name_the_culprit(door, tmp_path: Path) -> None:
    refused(door("--config", "configs/tinny.yaml"), "configs/tinny.yaml", "did you mean configs/tiny.yaml?")
    refused(door("--resume", str(tmp_path)), f"{tmp_path} is no run folder", "args.yaml is missing")
    refused(door("--config", TINY, f"data={tmp_path / 'none.yaml'}"), str(tmp_path / "none.yaml"), "no such file")
    refused(door("--config", TINY, "train.device=abacus", "--runs", str(tmp_path)), "train.device=abacus")


@pytest.mark.parametrize(
    ("annotations", "words"),
    [(None, ["no such folder", "set 'path'"]), ({"images": [], "annotations": [], "categories": []}, ["empty"])],
    ids=["missing", "empty"],
)
def test_a_data_set_that_is_missing_or_empty(door, tmp_path: Path, annotations: dict | None, words: list[str]) -> None:
    folder = tmp_path / "pictures"
    data = tmp_path / "data.yaml"
    data.write_text(f"path: {folder}\nformat: coco\ntrain: a.json:images\nval: a.json:images\nnames: [face]\n")
    if annotations is not None:
        (folder / "images").mkdir(parents=True)
        annotations = annotations | {"categories": [{"id": 1, "name": "face"}]}
        (folder / "a.json").write_text(json.dumps(annotations))
    refused(door("--config", TINY, f"data={data}", "--runs", str(tmp_path / "runs")), str(folder), *words)
    assert not (tmp_path / "runs" / "tiny").exists()


def test_further_data_sets_join_the_training_pictures(door, tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("{format: scenes, scenes: {count_train: 7, seed: 3}}")
    settings = ["--config", TINY, "--runs", str(tmp_path), "train.epochs=1", f"train.extra=[{tmp_path / 'more.yaml'}]"]
    code, out, err = door(*settings)
    assert (code, "23 pictures" in out) == (0, True), err
    (tmp_path / "more.yaml").write_text("{format: scenes, scenes: {count_train: 7, classes: [circle]}}")
    refused(door(*settings), "must have the same classes", "('circle',)")


def test_a_killed_run_goes_on_to_the_same_weights(door, tmp_path: Path) -> None:
    settings = ["--config", TINY, "train.epochs=3", "train.val_every=3"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    code, out, _ = door(*settings, "--runs", str(whole))
    assert code == 0 and "finished" in out
    written = {path.name for path in (whole / "tiny").iterdir() if not path.name.startswith("events.")}
    assert written == FILES

    command = [sys.executable, "-c", KILLED, *settings, "train.save_every_s=1e-6", "--runs", str(killed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert 0 < load_checkpoint(killed / "tiny/weights/last.pt").iteration < 12
    code, out, err = door("--resume", str(killed / "tiny"), "train.save_every_s=120")
    assert code == 0, err
    one, other = (load_checkpoint(run / "tiny/weights/last.pt") for run in (whole, killed))
    assert one.iteration == other.iteration == 12
    for part in ("model", "ema"):
        a, b = getattr(one, part), getattr(other, part)
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    losses = [[row["train/box_loss"] for row in read_results(run / "tiny/results.csv", 9)] for run in (whole, killed)]
    assert len(losses[0]) == 3 and np.array_equal(*losses)

    refused(door("--resume", str(killed / "tiny"), "arch.stem.channels=4"), "another architecture", "layer 'stem'")
    refused(door("--resume", str(killed / "tiny"), "train.batch_size=8"), "epochs of 2 iterations", "train.batch_size")
    assert read_run(killed / "tiny") == read_run(whole / "tiny")  # a refused change leaves args.yaml alone
    assert door("--resume", str(killed / "tiny"), "train.seed=1")[0] == 0
    assert read_run(killed / "tiny").train.seed == 1
