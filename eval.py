"""Score a detector by its data set's protocol on several machines at once, and prove that the integer ones agree.

    python eval.py runs/demo --data configs/data/wider.yaml --on float,int8,host --json runs/demo/metrics.json

Exit code 1 where any head map or box of an integer predictor differs from the int8 truth. `board:PORT` is a device on the
link (firmware.device says what PORT can be): each picture's result goes into a journal, --resume goes on with one.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from datasets import cli
from datasets.catalog import open_dataset
from datasets.config import load_data_config
from datasets.subset import Subset, evenly_spaced
from detection import results
from detection.board_report import conclude
from detection.evaluate import evaluate_together
from detection.journal import fresh_folder, resumable
from detection.metrics.protocols import evaluators_for, missing_note
from detection.metrics.resample import RESAMPLES
from detection.metrics.sizes import input_scales
from detection.predictors import CameraFrames, DeviceClassifier, DevicePredictor
from detection.sources import (
    NAMES,
    check_classes,
    find_source,
    is_classifier,
    open_board_predictor,
    open_predictor,
    split_names,
    truth_for,
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="SOURCE", help="run, export or zoo folder; checkpoint, .tflite or .tess")
    parser.add_argument("--data", required=True, help="data YAML")
    parser.add_argument("--on", default="int8", help=f"with commas: {', '.join(NAMES[:-1])}, emulator:TARGET, board:PORT")
    parser.add_argument("--split", default="val", choices=("train", "val", "test"))
    parser.add_argument("--limit", type=int, metavar="N", help="only N pictures, evenly spaced and always the same")
    parser.add_argument("--checkpoint", metavar="FILE", help="the float network, where SOURCE has none")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything measured to this file")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, metavar="N", help="of the bootstrap; 0 leaves it out")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="board: journal and latency log; a new folder of runs/board")
    parser.add_argument("--frames", choices=("rgb888", "rgb565"), default="rgb888", help="what pictures consist of; rgb565: "
                        "a camera's colours, and devices get such frames and letterbox them")
    parser.add_argument("--profile", action="store_true", help="board: count nodes (builds an emulator's firmware for it)")
    options = parser.parse_args()

    config = load_data_config(options.data)
    source, names = find_source(options.source, options.checkpoint), split_names(options.on)
    whole = open_dataset(config, options.split)
    check_classes(source, whole.classes)
    chosen = evenly_spaced(len(whole), options.limit)
    pictures = Subset(whole, chosen)
    name = Path(options.data).stem
    dataset = {
        "name": name, "format": config.format, "split": options.split, "images": len(pictures),
        "images_in_split": len(whole), "limit": options.limit, "frames": options.frames,
    }  # fmt: skip
    ids = [whole.image_ids[index] for index in chosen]
    camera = options.frames == "rgb565"
    if camera and is_classifier(source):
        raise ValueError(f"{options.source} is a classifier: it takes frames that the host letterboxed, --frames rgb888")
    folder = options.resume or fresh_folder(Path("runs/board"))
    predictors = [
        open_board_predictor(source, one, folder, {"data": name, "split": options.split}, ids, options.profile, camera)
        if one.startswith("board:") else open_predictor(source, one, camera=camera)
        for one in truth_for(names, source)
    ]  # fmt: skip
    journals = [one.journal for one in predictors if isinstance(one, DevicePredictor | DeviceClassifier) and one.journal]
    scales = input_scales(whole, predictors[0].height, predictors[0].width)
    new_evaluators = evaluators_for(config.format, config.path, options.split, whole.classes, scales, is_classifier(source))

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("pictures", total=len(pictures))
        with resumable(journals):
            found = evaluate_together(
                predictors, CameraFrames(pictures) if camera else pictures, new_evaluators,
                lambda done, _: bar.update(task, completed=done), options.resamples,
            )
    shown = [result for result in found if result.name in names]
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    title = f"{options.source} on {name}/{options.split}, {len(pictures)} of {len(whole)} pictures"
    console.print(results.results_table(shown, title))
    missing = missing_note(config.format, config.path, options.split)
    document = results.results_json(shown, options.source, source.sha256(), dataset, [missing] if missing else [])
    for line in results.size_lines(shown):
        console.print(line, soft_wrap=True)
    for line in results.difference_lines(document["differences"]):
        console.print(f"{line} (95 % bootstrap over images)", soft_wrap=True)
    for note in document["notes"]:
        console.print(f"note: {note}", soft_wrap=True)
    for predictor in predictors:
        if isinstance(predictor, DevicePredictor | DeviceClassifier) and predictor.journal:
            with resumable(journals):
                lines, measured = conclude(predictor, found, source.tess, title)
            document |= measured
            for line in lines:
                console.print(line, soft_wrap=True)
            predictor.close()
    if options.json:
        results.write_json(options.json, document)
    different = [result.difference for result in shown if result.difference is not None]
    if different:
        raise ValueError("; ".join(map(str, different)))
    return 0


if __name__ == "__main__":
    cli.run(main)
