"""What the missing training pictures cost: faces found in events of the training and in events that it never saw.

    python -m benchmarks.unseen_events yunet_s_dynamic.onnx zoo/face_qvga zoo/face_vga

WIDER FACE sorts its pictures by event, and a development set may hold the training pictures of a few events only. What that costs
shows beside a peer that was trained on all events (YuNet): on pictures of the training, on others of its events, on other events.
In floats; pictures go into each network's input whole, the peer's in the same size.
"""

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from datasets import cli
from datasets.annotations import Sample
from datasets.catalog import open_dataset
from datasets.config import DataError, load_data_config
from datasets.dataset import Dataset
from datasets.subset import Subset, evenly_spaced
from detection.detections import Detections
from detection.evaluate import Evaluation, Prediction, Predictor, evaluate_together
from detection.metrics.resample import RESAMPLES, interval
from detection.metrics.sizes import SIZES, SizeEvaluator, input_scales
from detection.pseudo import find_faces, open_yunet
from detection.readme import markdown_table
from detection.results import write_json
from detection.sources import find_source, open_predictor
from firmware.compiler.decode import DecodeSettings
from firmware.compiler.preprocess import content_size, letterbox

SHOWN = ("input_ap50_small", "input_ap50_medium")  # smaller faces are hardly found, larger ones are few
STRIDE = 32  # YuNet's coarsest: sides of its input are multiples


class Yunet:
    """YuNet (libfacedetection.train) at a size of one's choice, decoded by the settings of the detector beside it."""

    batch = 1

    def __init__(self, path: Path, height: int, width: int, settings: DecodeSettings) -> None:
        """Raises DataError as `open_yunet` does."""
        self.name, self.height, self.width = path.stem, height, width
        self._canvas = tuple(-(-side // STRIDE) * STRIDE for side in (height, width))
        self._net = open_yunet(path, settings.score_threshold, settings.iou_threshold, settings.max_candidates)

    def predict(self, samples: Sequence[Sample]) -> list[Prediction]:
        return [Prediction(self._detect(sample)) for sample in samples]

    def _detect(self, sample: Sample) -> Detections:
        canvas = np.zeros((*self._canvas, 3), np.uint8)
        canvas[: self.height, : self.width] = letterbox(sample.image, self.height, self.width)
        found = find_faces(self._net, canvas)
        content = content_size((sample.width, sample.height), (self.width, self.height))
        scale = np.array([sample.width / content.width, sample.height / content.height] * 2)
        boxes = np.clip(found[:, :4] * scale, 0, [sample.width, sample.height] * 2).astype(np.float32)
        inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        boxes, scores = boxes[inside], found[inside, -1]
        best_first = np.argsort(-scores, kind="stable")
        return Detections(boxes[best_first], scores[best_first], np.zeros(len(scores), np.int64))


def groups(train: Dataset, val: Dataset, limit: int | None) -> dict[str, Subset]:
    """Pictures by what a detector trained on `train` knows of them."""
    events = {name.partition("/")[0] for name in train.image_ids}
    seen = [index for index, name in enumerate(val.image_ids) if name.partition("/")[0] in events]
    unseen = sorted(set(range(len(val))) - set(seen))
    if not seen or not unseen:
        raise DataError(f"the training pictures are of {len(events)} events, which leaves nothing to compare")
    parts = {"training": (train, list(range(len(train)))), "validation, same events": (val, seen), "other events": (val, unseen)}
    return {
        name: Subset(dataset, tuple(indices[i] for i in evenly_spaced(len(indices), limit)))
        for name, (dataset, indices) in parts.items()
    }


def compare(predictors: Sequence[Predictor], group: str, pictures: Subset) -> list[Evaluation]:
    """AP50 by size of several detectors with inputs of one size."""
    scales = input_scales(pictures, predictors[0].height, predictors[0].width)
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(f"{predictors[-1].width}x{predictors[-1].height}: {group}", total=len(pictures))
        return evaluate_together(
            predictors,
            pictures,
            lambda: [SizeEvaluator(pictures.classes, scales)],
            lambda done, _: progress.update(task, completed=done),
            RESAMPLES,
        )


def cell(one: Evaluation) -> str:
    return " / ".join(f"{one.metrics.values[name]:.3f}" for name in SHOWN)


def as_json(one: Evaluation) -> dict[str, Any]:
    intervals = {name: [round(v, 4) for v in interval(one.resampled[name])] for name in SHOWN}
    values = {name: round(one.metrics.values[name], 4) for name in SHOWN}
    return {"images": one.images, "values": values, "intervals": intervals}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", type=Path, help="YuNet's .onnx file")
    parser.add_argument("models", nargs="+", help="zoo folders, runs or checkpoints")
    parser.add_argument("--data", default="configs/data/wider.yaml")
    parser.add_argument("--limit", type=int, metavar="N", help="of each kind of pictures, evenly spaced; all by default")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/unseen_events.json"))
    options = parser.parse_args()
    config = load_data_config(options.data)
    parts = groups(open_dataset(config, "train"), open_dataset(config, "val"), options.limit)
    rows, results, files = [], [], {options.peer.name: hashlib.sha256(options.peer.read_bytes()).hexdigest()}
    for model in options.models:
        source = find_source(model)
        ours = open_predictor(source, "float", raw=False)
        files |= {f"{Path(model).name}/checkpoint": source.sha256()[source.checkpoint.name]}
        predictors = [ours, Yunet(options.peer, ours.height, ours.width, ours.settings)]
        found = {group: compare(predictors, group, pictures) for group, pictures in parts.items()}
        for index, name in enumerate((Path(model).name, options.peer.stem)):
            rows.append([name, f"{ours.width}x{ours.height}", *(cell(both[index]) for both in found.values())])
            about = {"model": name, "input": [ours.height, ours.width]}
            results += [{**about, "pictures": group, **as_json(both[index])} for group, both in found.items()]
    columns = ["detector (float)", "input", *(f"{name} ({len(part):,})" for name, part in parts.items())]
    shown = " / ".join(SIZES[name] for name in SHOWN)
    note = f"AP50 of faces of {shown} in the network's input; the number of pictures in brackets."
    write_json(options.json, {"columns": columns, "rows": rows, "note": note, "results": results, "sha256_of_files": files})
    print(markdown_table(columns, rows))


if __name__ == "__main__":
    cli.run(main)
