"""Train a detector: `python train.py --config configs/demo.yaml [key=value ...]`, or `--resume runs/demo`."""

import argparse
from pathlib import Path

import torch

from datasets import cli
from datasets.cache import cache_dataset
from datasets.catalog import open_dataset
from datasets.config import load_data_config
from datasets.dataset import Dataset
from datasets.joined import Joined
from datasets.scenes import SceneDataset
from datasets.subset import hold_out
from detection import arch, plots, runs
from detection.config import Config, load_config
from detection.distributed import World, barrier, join_world, leave_world
from detection.trainer import make_trainer


def _cached(dataset: Dataset, config: Config, folder: str, world: World) -> Dataset:
    """The same with decoded pictures; the main process decodes, the others then find the file."""
    if not config.train.cache or isinstance(dataset, SceneDataset):
        return dataset
    if not world.is_main:
        barrier(world)
    cached = cache_dataset(dataset, Path(folder) / "cache", config.train.cache_side, progress=runs.show_cache)
    if world.is_main:
        barrier(world)
    return cached


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", help="experiment YAML")
    source.add_argument("--resume", metavar="RUN", help="run folder to go on with")
    parser.add_argument("--runs", default="runs", help="folder of all runs (default: runs)")
    parser.add_argument("--print-config", action="store_true", help="show the resolved configuration and stop")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, e.g. train.epochs=10")
    options = parser.parse_args()

    if options.resume:
        config = runs.read_run(options.resume, options.overrides)
    else:
        config = load_config(options.config, options.overrides)
    if options.print_config:
        print(runs.to_yaml(config), end="")
        return 0
    torch.set_num_threads(config.train.threads)
    world = join_world(config.train.device)
    try:
        data = load_data_config(config.data)
        train, val = open_dataset(data, "train", config.train.limit), open_dataset(data, "val")
        train = _cached(train, config, options.runs, world)
        if config.train.tuning:
            train, val = hold_out(train, config.train.tuning)
        extra = [open_dataset(load_data_config(path), "train") for path in config.train.extra]
        if extra:
            train = Joined((train, *(_cached(part, config, options.runs, world) for part in extra)))
        run = Path(options.resume) if options.resume else runs.new_run(options.runs, config, world)
        trainer = make_trainer(config, train, val, run, world)
        (trainer.resume if options.resume else trainer.start)()
        if world.is_main:
            runs.write_args(run, config)
            h, w = config.input.height, config.input.width
            macs, params = arch.macs(trainer.arch, h, w), arch.params(trainer.arch)
            print(f"{run}: {macs / 1e6:.2f} M MACs at {h}x{w} (h x w), {params:,} parameters, {len(train)} pictures", flush=True)
        trainer.fit(plots.start_plots(trainer))
        if world.is_main:
            done = trainer.iteration == trainer.total
            print(f"best mAP50 {max(trainer.best, 0):.4f}: {run / 'weights' / 'best.pt'}")
            print("finished" if done else f"stopped at iteration {trainer.iteration} of {trainer.total}: --resume {run} goes on")
    finally:
        leave_world()
    return 0


if __name__ == "__main__":
    cli.run(main)
