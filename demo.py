"""Find objects in pictures, on this machine or on an emulated chip, and draw them.

    python demo.py runs/demo street.jpg holiday/ --on emulator --out found
"""

import argparse
import sys
import time
from pathlib import Path

from datasets import cli
from detection.draw import draw_detections
from detection.pictures import find_pictures, load_picture, output_names, save_picture
from detection.sources import NAMES, class_names, find_source, open_predictor, split_names


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="SOURCE", help="run, export or zoo folder; checkpoint, .tflite or .tess")
    parser.add_argument("pictures", metavar="PICTURE", nargs="+", help="picture files, folders of pictures")
    parser.add_argument("--on", default="host", help=f"one of {', '.join(NAMES)}, emulator:TARGET (default: host)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the pictures with boxes")
    parser.add_argument("--score", type=float, default=0.3, help="least score of a box that counts (default: 0.3)")
    options = parser.parse_args()

    pictures = find_pictures(options.pictures)
    source, names = find_source(options.source), split_names(options.on)
    if len(names) > 1:
        raise ValueError("--on takes one predictor; eval.py compares several")
    predictor, classes = open_predictor(source, names[0], raw=False), class_names(source)
    failed = 0
    for picture, target in zip(pictures, output_names(pictures, options.out), strict=True):
        try:
            sample = load_picture(picture)
        except ValueError as error:  # one broken picture in a folder does not stop the others
            print(f"error: {error}", file=sys.stderr)
            failed += 1
            continue
        start = time.perf_counter()
        found, _, instructions = predictor.predict([sample])[0]
        elapsed = time.perf_counter() - start
        drawn = draw_detections(sample.image, found, classes, (sample.width, sample.height), options.score)
        save_picture(target, drawn)
        count = int((found.scores >= options.score).sum())
        best = f", best {found.scores[0]:.2f} {classes[found.labels[0]]}" if count else ""
        cost = f"{1000 * elapsed:.0f} ms" if instructions is None else f"{instructions:,} instructions"
        print(f"{picture} -> {target}: {count} box{'' if count == 1 else 'es'}{best}, {cost}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    cli.run(main)
