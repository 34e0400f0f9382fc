"""Experiments as data: strict, saved whole, free of torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from datasets.strict import parse
from detection.arch import macs
from detection.config import Config, ConfigError, load_config
from detection.distributed import World
from detection.lower import lower_structure
from detection.runs import new_run, read_results, read_run, write_results
from firmware.compiler.program import build_program
from firmware.compiler.schedule import stream
from firmware.compiler.search import deploy

ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted(path for path in (ROOT / "configs").glob("*.yaml") if "input:" in path.read_text())


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_reads_and_names_an_existing_data_yaml(path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem and config.data.is_file()


def test_voc9_keeps_its_budget() -> None:
    """180 M MACs and 160 kB: already by streaming the first blocks and running the rest layer by layer; the search needs less."""
    config = load_config(ROOT / "configs/voc9.yaml")
    arch = config.arch.with_classes(9)
    assert macs(arch, config.input.height, config.input.width) <= 180e6
    program = build_program(lower_structure(arch, config.input.height, config.input.width))
    costs = [deploy(program, stream(program, stop), config.decode.max_candidates).cost for stop in (16, 20, 24)]
    assert min(cost.peak_sram for cost in costs if cost.recompute == 0) <= 160_000


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
        ("input.height=31", "input.height"),
        ("epochs=3", "did you mean train.epochs"),
        ("train.epochs", "key=value"),
    ],
)
def test_wrong_settings_name_themselves(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(ROOT / "configs/tiny.yaml", [override])


def test_data_inside_the_repository_is_saved_relative_to_it(tmp_path: Path) -> None:
    """A clone elsewhere must find the data YAMLs that came along; what lies outside has one place only."""
    tiny = load_config(ROOT / "configs/tiny.yaml")
    assert tiny.data == ROOT / "configs/data/scenes.yaml" and tiny.as_dict()["data"] == "configs/data/scenes.yaml"
    outside = load_config(ROOT / "configs/tiny.yaml", [f"data={tmp_path / 'own.yaml'}"])
    assert outside.as_dict()["data"] == str(tmp_path / "own.yaml")
    for config in (tiny, outside):
        assert parse(config.as_dict(), Config, "saved") == config == read_run(new_run(tmp_path, config, World()))
    old = tiny.as_dict() | {"data": str(ROOT / "configs/data/scenes.yaml")}  # before 0.1: always absolute
    assert parse(old, Config, "old") == tiny


def test_data_is_found_from_the_file_from_here_and_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "configs/tiny.yaml").read_text()
    (tmp_path / "own.yaml").write_text(text.replace("data/scenes.yaml", "near.yaml"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert load_config("own.yaml").data == tmp_path / "near.yaml"
    assert load_config("own.yaml", ["data=typed.yaml"]).data == tmp_path / "typed.yaml"
    assert load_config(ROOT / "configs/tiny.yaml", ["data=~/typed.yaml"]).data == tmp_path / "home/typed.yaml"
    run = new_run(tmp_path, load_config(ROOT / "configs/tiny.yaml"), World())
    assert read_run(run, ["data=typed.yaml"]).data == tmp_path / "typed.yaml"


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
