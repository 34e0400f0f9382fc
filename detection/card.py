"""Pictures and truth for the SD card of an OpenMV Cam, and the figure that the camera must find on them without a host.

    python -m detection.card sdcard --data configs/data/wider.yaml --limit 100 --out sdcard/pictures

Writes pictures as 16-bit .bmp of the size that the network sees, truth.csv with the objects in pixels of the originals, and
expected.json: average precision by counters from the C runtime of this machine on the same bytes, equal in C and Python.
"""

import argparse
import json
import struct
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets import cli
from datasets.annotations import Sample
from datasets.catalog import open_dataset
from datasets.config import load_data_config
from datasets.subset import Subset, evenly_spaced
from detection.detections import Detections
from detection.metrics.grouped import Q30, GroupedAp, place_truth
from detection.metrics.voc import VocEvaluator
from detection.sources import check_classes, find_source
from firmware.compiler.decode import to_original
from firmware.compiler.preprocess import content_size, letterbox, to_rgb565
from firmware.header import load_tess
from firmware.host import HostModel
from firmware.host_ap import HostAp

_MASKS = (0xF800, 0x07E0, 0x001F)


class CardError(ValueError):
    """Pictures or a model that no card can be made of."""


@dataclass(frozen=True)
class Card:
    """What the camera must find. Average precision in 1/2^30, None without an object."""

    pictures: int
    mean: int | None
    by_class: dict[str, int | None]
    sorted_ap: float  # AP50 of the sorted list in pixels of the originals, NaN without an object
    most_objects: int  # of a picture

    def summary(self) -> str:
        if self.mean is None:
            return f"{self.pictures} pictures without an object to find"
        value = self.mean / Q30
        return (
            f"{self.pictures} pictures, at most {self.most_objects} objects in one; "
            f"AP50 by counters {value:.6f} ({self.mean}/2^30), "
            f"by the sorted list {self.sorted_ap:.6f}, difference {value - self.sorted_ap:+.6f}"
        )


def bitmap(pixels: np.ndarray) -> bytes:
    """uint16 (h, w) RGB565 -> a .bmp of 16 bits a pixel, top line first."""
    height, width = pixels.shape
    lines = np.zeros((height, (width + 1) // 2 * 2), "<u2")
    lines[:, :width] = pixels
    size = 66 + lines.nbytes
    head = struct.pack("<2sIII", b"BM", size, 0, 66)
    head += struct.pack("<IiiHHIIiiII", 40, width, -height, 1, 16, 3, lines.nbytes, 2835, 2835, 0, 0)
    return head + struct.pack("<III", *_MASKS) + lines.tobytes()


def truth_lines(name: str, sample: Sample, classes: tuple[str, ...]) -> list[str]:
    """Lines of truth.csv: corners to 1/16 pixel, one line an object, or one without any."""
    head = f"{name},{sample.width},{sample.height}"
    truth = sample.truth
    lines = []
    for box, label, ignore in zip(truth.boxes.astype(np.float64), truth.labels, truth.ignore, strict=True):
        corners = ",".join(f"{np.floor(16 * max(0.0, value) + 0.5) / 16:.10g}" for value in box)
        lines.append(f"{head},{corners},{classes[label]},{int(ignore)}")
    return lines or [head]


def make_card(tess: Path, samples: Iterable[Sample], folder: Path) -> Card:
    """Write `folder`, whole or not at all, and say what a camera with this model must find there."""
    model = HostModel(load_tess(tess))
    classes = model.classes
    if not classes:
        raise CardError(f"{tess} is no detector of ours: it finds no boxes")
    if any("," in name for name in classes):
        raise CardError("a class has a comma in its name, which separates the cells of truth.csv")
    levels = model.score_levels().tolist()
    ours, chips = GroupedAp(levels, len(classes)), HostAp(levels, len(classes))
    by_list = VocEvaluator(classes, eleven_points=False)
    most, count = 0, 0
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".card-") as scratch:
        work = Path(scratch) / folder.name
        work.mkdir()
        with open(work / "truth.csv", "w") as truth_file:
            for count, sample in enumerate(samples, start=1):
                name = f"{count:05d}.bmp"
                boxes = _write_picture(model, sample, work / name)
                truth_file.writelines(line + "\n" for line in truth_lines(name, sample, classes))
                truth = place_truth(sample.truth, (sample.width, sample.height), model.content)
                ours.add(boxes, truth)
                chips.add(boxes, truth)
                found = Detections(*to_original(boxes, model.content, (sample.width, sample.height)))
                by_list.add(name, sample.truth, found)
                most = max(most, len(truth))
        by_class = {name: ours.average_precision(label) for label, name in enumerate(classes)}
        if [chips.average_precision(label) for label in range(len(classes))] != list(by_class.values()):
            raise CardError("average precision differs between C and Python: please report this")
        card = Card(count, ours.mean(), by_class, by_list.result().values["voc_ap50_area"], most)
        expected = {"pictures": count, "ap50_q30": card.mean, "by_class_q30": by_class}
        (work / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
        if folder.exists():
            raise CardError(f"{folder} exists already: remove it or name another one")
        work.rename(folder)
    return card


def _write_picture(model: HostModel, sample: Sample, path: Path) -> np.ndarray:
    """Write the picture at the network's size; the boxes that the C runtime finds in its bytes."""
    height, width, _ = model.input_shape
    content = content_size((sample.image.shape[1], sample.image.shape[0]), (width, height))
    pixels = to_rgb565(letterbox(sample.image, height, width)[: content.height, : content.width])
    path.write_bytes(bitmap(pixels))
    return model.detect(pixels.astype("<u2").view(np.uint8).reshape(*pixels.shape, 2), "rgb565_le")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="folder with the model.tess that is on the card")
    parser.add_argument("--data", required=True, help="data YAML")
    parser.add_argument("--split", default="val", choices=("train", "val", "test"))
    parser.add_argument("--limit", type=int, default=100, metavar="N", help="pictures, evenly spaced (default: 100)")
    parser.add_argument("--out", type=Path, required=True, help="folder to make, such as sdcard/pictures")
    options = parser.parse_args()
    source = find_source(options.source)
    if source.tess is None:
        raise CardError(f"{options.source} has no model.tess: export.py --target openmv-h7 --out {options.source} makes one")
    whole = open_dataset(load_data_config(options.data), options.split)
    check_classes(source, whole.classes)
    card = make_card(source.tess, Subset(whole, evenly_spaced(len(whole), options.limit)), options.out)
    print(f"{options.out}: {card.summary()}")
    return 0


if __name__ == "__main__":
    cli.run(main)
