"""Experiments as data: strict, saved whole, free of torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from detection.config import ConfigError, load_config
from detection.distributed import World
from detection.runs import new_run, read_results, read_run, write_results

ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted(path for path in (ROOT / "configs").glob("*.yaml") if "input:" in path.read_text())


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_reads_and_names_an_existing_data_yaml(path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem and config.data.is_file()


def test_overrides_win_and_are_saved(tmp_path: Path) -> None:
    config = load_config(ROOT / "configs/tiny.yaml", ["train.epochs=7", "augment.scale=[1, 2]", "arch.head.kernel=5"])
    assert (config.train.epochs, config.augment.scale, config.arch.head.kernel) == (7, (1, 2), 5)
    run = new_run(tmp_path, config, World())
    assert read_run(run) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epohcs=3", "train.epohcs is not a setting .did you mean train.epochs"),
        ("train.epochs=many", "train.epochs"),
        ("train.lr=-1", "train.lr"),
        ("input.height=100", "largest stride divides"),
        ("epochs=3", "did you mean train.epochs"),
        ("train.epochs", "key=value"),
    ],
)
def test_wrong_settings_name_themselves(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(ROOT / "configs/tiny.yaml", [override])


def test_runs_are_numbered(tmp_path: Path) -> None:
    config = load_config(ROOT / "configs/tiny.yaml")
    assert [new_run(tmp_path, config, World()).name for _ in range(3)] == ["tiny", "tiny2", "tiny3"]


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"args\.yaml is missing"):
        read_run(tmp_path)


def test_results_survive_and_are_cut_at_the_resumed_epoch(tmp_path: Path) -> None:
    rows = [{"epoch": n, "time": 1.5 * n, "train/box_loss": 0.25} for n in range(1, 5)]
    write_results(tmp_path / "results.csv", rows)
    back = read_results(tmp_path / "results.csv", 2)
    assert [(row["epoch"], row["time"], row["train/box_loss"]) for row in back] == [(1, 1.5, 0.25), (2, 3, 0.25)]


def test_config_imports_no_torch() -> None:
    code = "import sys, detection.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
