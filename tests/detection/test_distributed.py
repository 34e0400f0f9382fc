"""Two processes under `torchrun`, on the CPU."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detection.checkpoint import load_checkpoint
from detection.config import ConfigError
from detection.distributed import World, any_process, barrier, join_world, leave_world, parallel
from detection.runs import read_results

ROOT = Path(__file__).parents[2]
# train.py itself, and afterwards each process writes down its weights.
SCRIPT = """
import os, sys, torch
sys.path.insert(0, os.getcwd())
import train
from datasets import cli
from detection.trainer import Trainer

fit = Trainer.fit

def fit_and_tell(self, on_epoch=None):
    fit(self, on_epoch)
    torch.save(dict(self.model.named_parameters()), f"{os.environ['OUT']}/{self.world.rank}.pt")

Trainer.fit = fit_and_tell
train.plots.start_plots = lambda trainer: None  # seconds of drawing; test_plots.py
cli.run(train.main)
"""


def test_two_processes_end_with_the_same_weights(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_addr=127.0.0.1",
               f"--master_port={port}", str(tmp_path / "script.py"), "--config", "configs/tiny.yaml", "--runs",
               str(tmp_path / "runs")]  # fmt: skip
    environment = os.environ | {"OUT": str(tmp_path), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished") == 1  # one process speaks
    assert os.listdir(tmp_path / "runs") == ["tiny"]  # and writes
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    saved = load_checkpoint(tmp_path / "runs/tiny/weights/last.pt")
    assert all(torch.equal(one[name], other[name]) and torch.equal(one[name], saved.model[name]) for name in one)
    rows = read_results(tmp_path / "runs/tiny/results.csv", 9)
    assert [row["iteration"] for row in rows] == [2, 4]  # 16 pictures, 2 x 4 in a batch
    assert all(0 < row["train/box_loss"] < 10 for row in rows)


def test_a_world_of_one_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    world = join_world("cpu")
    assert world == World() and world.is_main
    model = torch.nn.Linear(1, 1)
    assert parallel(model, world) is model
    assert any_process(True, world) and not any_process(False, world)
    barrier(world)
    leave_world()


@pytest.mark.parametrize("device", ["abacus", "cuda:99"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    with pytest.raises(ConfigError, match=f"train.device={device}: "):
        join_world(device)
