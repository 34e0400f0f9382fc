"""Two networks on the same pictures: every value, the difference, and its bootstrap interval over images.

    python -m detection.compare runs/plain runs/redistributed --data configs/data/voc9.yaml --on int8
"""

import argparse
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from datasets import cli
from datasets.catalog import open_dataset
from datasets.config import load_data_config
from datasets.subset import Subset, evenly_spaced
from detection import results
from detection.evaluate import Evaluation, evaluate_together
from detection.metrics.protocols import evaluators_for
from detection.metrics.resample import RESAMPLES
from detection.metrics.sizes import input_scales
from detection.predictors import PredictorError
from detection.sources import check_classes, find_source, is_classifier, open_predictor, split_names


def compare(sources: list[str], data: Path, on: str, split: str, limit: int | None, resamples: int) -> list[Evaluation]:
    """One `Evaluation` a source, named by it, all on the same pictures and resamples."""
    config = load_data_config(data)
    whole = open_dataset(config, split)
    pictures = Subset(whole, evenly_spaced(len(whole), limit))
    found = []
    with Progress(console=Console(stderr=True), transient=True) as bar:
        for name in sources:
            source = find_source(name)
            check_classes(source, whole.classes)
            predictor = open_predictor(source, on, raw=False)
            scales = input_scales(whole, predictor.height, predictor.width)
            make = evaluators_for(config.format, config.path, split, whole.classes, scales, is_classifier(source))
            task = bar.add_task(name, total=len(pictures))
            advance = lambda done, _, task=task: bar.update(task, completed=done)  # noqa: E731
            found.append(replace(evaluate_together([predictor], pictures, make, advance, resamples)[0], name=name))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="runs, exports, zoo folders or files; the first is the base")
    parser.add_argument("--data", type=Path, required=True, help="data YAML")
    parser.add_argument("--on", default="host", help="the predictor to run each of them on (default: host)")
    parser.add_argument("--split", default="val", choices=("train", "val", "test"))
    parser.add_argument("--limit", type=int, metavar="N", help="only N pictures, evenly spaced and always the same")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, metavar="N", help=f"of the bootstrap (default: {RESAMPLES})")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything measured to this file")
    options = parser.parse_args()
    if len(split_names(options.on)) > 1:
        raise PredictorError(f"--on {options.on}: networks are compared on one predictor at a time")
    found = compare(options.sources, options.data, options.on, options.split, options.limit, options.resamples)
    console = Console(highlight=False, soft_wrap=True)
    title = f"{options.data.stem}/{options.split}, {found[0].images} pictures, on {options.on}"
    console.print(results.results_table(found, title))
    hashes = {f"{name}/{file}": digest for name in options.sources for file, digest in find_source(name).sha256().items()}
    dataset = {"name": options.data.stem, "split": options.split, "images": found[0].images, "limit": options.limit}
    document = results.results_json(found, ", ".join(options.sources), hashes, dataset)
    for line in [*results.size_lines(found), *results.difference_lines(document["differences"])]:
        console.print(line)
    if options.json:
        results.write_json(options.json, document)
    return 0


if __name__ == "__main__":
    cli.run(main)
