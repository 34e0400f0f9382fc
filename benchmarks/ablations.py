"""What each idea is worth: short trainings that differ in one thing, scored on pictures that none of them saw.

    python -m benchmarks.ablations configs/ablations/face.yaml

Each arm is one call of train.py with the settings that all share and its own; an arm that was stopped goes on, one that has
finished is not run again. Its last averaged weights are scored on the training pictures that `train.tuning` holds out. The first
arm is the base; differences from it come with their bootstrap interval over pictures.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator
from rich.console import Console
from rich.progress import track

from datasets import cli
from datasets.catalog import open_dataset
from datasets.config import load_data_config
from datasets.strict import StrictModel, load_yaml
from datasets.subset import hold_out
from detection import arch
from detection.checkpoint import CheckpointError, load_checkpoint
from detection.config import ConfigError, load_config
from detection.evaluate import Evaluation, evaluate_together
from detection.metrics.resample import RESAMPLES
from detection.metrics.sizes import SIZES, SizeEvaluator, input_scales
from detection.metrics.voc import VocEvaluator
from detection.readme import markdown_table
from detection.results import results_json, write_json
from detection.runs import read_results
from detection.sources import find_source, open_predictor

ROOT = Path(__file__).resolve().parents[1]
SCORE = "voc_ap50_area"


class Arm(StrictModel):
    """One training."""

    what: str  # a person's words for the table
    set: tuple[str, ...] = ()  # key=value


class Ablations(StrictModel):
    """A family of trainings; the first arm is the base of comparison."""

    config: str  # below configs/
    set: tuple[str, ...]  # key=value, for all arms
    arms: dict[str, Arm] = Field(min_length=1)

    @field_validator("set")
    @classmethod
    def _held_out(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not any(setting.startswith("train.tuning=") for setting in value):
            raise ValueError("train.tuning=SHARE is missing: arms are scored on training pictures that are held out")
        return value

    def settings(self, name: str) -> list[str]:
        return [f"name={name}", *self.set, *self.arms[name].set]


def finished(run: Path) -> bool | None:
    """True for a run at its end, False for one that was stopped, None where there is none."""
    try:
        saved = load_checkpoint(run / "weights" / "last.pt")
    except CheckpointError:
        return None
    return saved.epoch >= saved.config["train"]["epochs"]


def train(plan: Ablations, name: str, runs: Path) -> None:
    """Train an arm to its end. Raises ConfigError when train.py fails; it has said why."""
    state = finished(runs / name)
    if state:
        return
    new = ["--config", str(ROOT / "configs" / plan.config), "--runs", str(runs), *plan.settings(name)]
    call = ["--resume", str(runs / name), "--runs", str(runs)] if state is False else new
    if subprocess.run([sys.executable, str(ROOT / "train.py"), *call]).returncode or not finished(runs / name):
        raise ConfigError(f"arm '{name}' did not reach its end; call again to go on")


def score(plan: Ablations, name: str, runs: Path, resamples: int) -> Evaluation:
    """An arm on the held out pictures, in floats."""
    config = load_config(ROOT / "configs" / plan.config, plan.settings(name))
    _, held = hold_out(open_dataset(load_data_config(config.data), "train"), config.train.tuning)
    scales = input_scales(held, config.input.height, config.input.width)
    predictor = open_predictor(find_source(runs / name / "weights" / "last.pt"), "float", raw=False)
    make = lambda: [VocEvaluator(held.classes, eleven_points=False), SizeEvaluator(held.classes, scales)]  # noqa: E731
    return replace(evaluate_together([predictor], held, make, None, resamples)[0], name=name)


def cost(plan: Ablations, name: str, runs: Path) -> dict[str, Any]:
    """What an arm asks for: multiply-accumulates a picture, training time, pictures seen."""
    config = load_config(ROOT / "configs" / plan.config, plan.settings(name))
    saved = load_checkpoint(runs / name / "weights" / "last.pt")
    macs = arch.macs(saved.arch, config.input.height, config.input.width)
    seconds = read_results(runs / name / "results.csv", saved.epoch)[-1]["time"]
    pictures = saved.iteration * config.train.batch_size
    return {"what": plan.arms[name].what, "settings": plan.arms[name].set, "macs": macs, "seconds": seconds, "pictures": pictures}


def table(arms: Mapping[str, Any], results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The outcome as columns and rows of cells. `results`: what `results_json` makes of the arms' evaluations."""
    values = {result["name"]: result["values"] for result in results["results"]}
    differences = {row["of"]: row["values"].get(SCORE) for row in results["differences"]}
    sizes = [size for size in SIZES if all(values[name].get(size) is not None for name in arms)]
    rows = []
    for name, arm in arms.items():
        d = differences.get(name)
        change = "-" if d is None else f"{d['difference']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]"
        by_size = [f"{values[name][size]:.3f}" for size in sizes]
        rows.append([arm["what"], f"{arm['macs'] / 1e6:.1f}", f"{values[name][SCORE]:.3f}", change, *by_size])
    return ["arm", "M MACs", "AP50", "difference", *(SIZES[size] for size in sizes)], rows


def report(plan: Ablations, names: Sequence[str], runs: Path, resamples: int) -> dict[str, Any]:
    """Everything measured of the arms that have finished."""
    found = [score(plan, name, runs, resamples) for name in track(names, "scoring", console=Console(stderr=True))]
    hashes = {f"{name}/last.pt": find_source(runs / name / "weights" / "last.pt").sha256()["last.pt"] for name in names}
    config = load_config(ROOT / "configs" / plan.config, plan.settings(names[0]))
    dataset = {"name": config.data.stem, "split": f"train, held out {config.train.tuning:g}", "images": found[0].images}
    arms = {name: cost(plan, name, runs) for name in names}
    start = "nothing" if config.train.init is None else str(config.train.init)
    results = results_json(found, f"configs/{plan.config}", hashes, dataset)
    columns, rows = table(arms, results)
    note = (
        f"{config.data.stem}: AP50 on {found[0].images} training pictures that no arm saw, after {config.train.epochs} epochs "
        f"from {start} where a row does not say otherwise; to the right of objects by side in the network's input. Differences "
        "from the first row with 95 % intervals over pictures: one training each, so the luck of a run comes on top."
    )
    settings = {"config": plan.config, "settings": plan.set, "epochs": config.train.epochs, "start": start, "arms": arms}
    return {"columns": columns, "rows": rows, "note": note} | results | settings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path, help="YAML of arms, e.g. configs/ablations/face.yaml")
    parser.add_argument("--only", nargs="+", metavar="ARM", help="train these and report on what has finished")
    parser.add_argument("--runs", type=Path, default=None, help="folder of the arms' runs (default: runs/ablations_NAME)")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, metavar="N", help=f"of the bootstrap (default: {RESAMPLES})")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), metavar="DIR", help="of ablations_NAME.json")
    options = parser.parse_args()
    plan = load_yaml(options.plan, Ablations)
    runs = options.runs or Path("runs") / f"ablations_{options.plan.stem}"
    unknown = [name for name in options.only or () if name not in plan.arms]
    if unknown:
        raise ConfigError(f"{options.plan} has no arm '{unknown[0]}'; it has {', '.join(plan.arms)}")
    for name in options.only or plan.arms:
        train(plan, name, runs)
    done = [name for name in plan.arms if finished(runs / name)]
    if done[:1] != list(plan.arms)[:1]:
        raise ConfigError(f"the base '{next(iter(plan.arms))}' has not finished: there is nothing to compare with")
    document = report(plan, done, runs, options.resamples)
    write_json(options.out / f"ablations_{options.plan.stem}.json", document)
    print(markdown_table(document["columns"], document["rows"]))
    return 0


if __name__ == "__main__":
    cli.run(main)
