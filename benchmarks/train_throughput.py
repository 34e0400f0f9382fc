"""Is the data pipeline ever the bottleneck? `python -m benchmarks.train_throughput [--config FILE] [key=value ...]`

Pictures a second of three loops over the same number of iterations, one after the other in one run:
the model alone (one batch again and again), the loaders alone, and both as in training. The promise is that training runs at
0.9 or more of the model alone; it can hold only where the loader process has a core of its own.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from datasets import cli
from datasets.cache import cache_dataset
from datasets.catalog import open_dataset
from datasets.config import load_data_config
from datasets.subset import Subset, evenly_spaced
from detection.batches import training_batches
from detection.config import load_config
from detection.distributed import World
from detection.trainer import make_trainer

OUT = Path("benchmarks/train_throughput.json")
WARM_UP = 10  # iterations before each clock starts: the loaders' queue is full, memory is there


def images_per_second(batch_size: int, iterations: int, once: Callable[[], object]) -> float:
    for _ in range(WARM_UP):
        once()
    started = time.perf_counter()
    for _ in range(iterations):
        once()
    return batch_size * iterations / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/face.yaml")
    parser.add_argument("--iterations", type=int, default=60, metavar="N")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args()
    config = load_config(options.config, options.overrides)
    torch.set_num_threads(config.train.threads)
    data = load_data_config(config.data)
    train = cache_dataset(open_dataset(data, "train", config.train.limit), "runs/cache", config.train.cache_side)
    val = open_dataset(data, "val")
    few = Subset(val, evenly_spaced(len(val), 1))
    with tempfile.TemporaryDirectory() as scratch:
        trainer = make_trainer(config, train, few, Path(scratch), World())
        last = WARM_UP + options.iterations + 1

        def batches() -> Callable[[], object]:
            stream = training_batches(train, config, trainer.schedule, 0, last)
            return lambda: next(stream)

        batch, load, both = batches()(), batches(), batches()
        rates = {
            "model": images_per_second(len(batch.images), options.iterations, lambda: trainer.step(trainer.model, batch)),
            "loaders": images_per_second(len(batch.images), options.iterations, load),
            "training": images_per_second(len(batch.images), options.iterations, lambda: trainer.step(trainer.model, both())),
        }
    outcome = {
        "config": options.config,
        "overrides": options.overrides,
        "crop": list(config.crop),
        "cores": os.cpu_count(),
        "threads": config.train.threads,
        "workers": config.train.workers,
        "iterations": options.iterations,
        "images_per_second": {name: round(rate, 1) for name, rate in rates.items()},
        "training_over_model": round(rates["training"] / rates["model"], 3),
    }
    OUT.write_text(json.dumps(outcome, indent=1) + "\n")
    print(json.dumps(outcome, indent=1))


if __name__ == "__main__":
    cli.run(main)
