"""Find objects in pictures and videos, on this machine or on an emulated chip, and draw them; or watch it live.

    python demo.py zoo/face_qvga street.jpg holiday/ walk.mp4 --out found
    python demo.py zoo/face_qvga --live 0                      # webcam 0; then open the address that is printed
    python demo.py zoo/face_qvga holiday/ --live /dev/ttyACM0  # the pictures go to a board; also: emulator, socket://...
"""

import argparse
import sys
from pathlib import Path

from datasets import cli
from detection.annotate import Annotator
from detection.live.app import LiveOptions, run_live
from detection.pictures import find_pictures, output_names
from detection.predictors import DevicePredictor
from detection.sources import NAMES, Source, class_names, find_source, open_predictor, split_names


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="SOURCE", help="run, export or zoo folder; checkpoint, .tflite or .tess")
    parser.add_argument("pictures", metavar="PICTURE", nargs="*", help="pictures, videos, folders of them")
    parser.add_argument("--on", default="host", help=f"one of {', '.join(NAMES)}, emulator:TARGET (default: host)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for what is drawn or recorded (live: runs/live)")
    parser.add_argument("--score", type=float, default=0.3, help="least score of a box that counts (default: 0.3)")
    live = parser.add_argument_group("live, on a page in the browser")
    live.add_argument("--live", metavar="FROM", help="a webcam's number, a video, a folder, scenes; or a board's port, emulator")
    live.add_argument("--port", type=int, default=LiveOptions.port, help="0: any that is free (default: %(default)s)")
    live.add_argument("--bind", default=LiveOptions.bind, metavar="ADDRESS", help="other than 127.0.0.1: with a token only")
    live.add_argument("--token", help="what viewers must bring (default: made up where it is needed)")
    live.add_argument("--track-here", action="store_true", help="follow objects on this machine (default: on the board)")
    options = parser.parse_args()
    source = find_source(options.source)
    return _live(source, options) if options.live else _annotate(source, options)


def _annotate(source: Source, options: argparse.Namespace) -> int:
    if not options.pictures or options.out is None:
        raise ValueError("name pictures and a folder to write to (--out DIR), or watch with --live")
    pictures, names = find_pictures(options.pictures), split_names(options.on)
    if len(names) > 1:
        raise ValueError("--on takes one predictor; eval.py compares several")
    predictor = open_predictor(source, names[0], raw=False)
    try:
        return _annotate_all(Annotator(predictor, class_names(source), options.score), pictures, options.out)
    finally:
        if isinstance(predictor, DevicePredictor):
            predictor.close()


def _annotate_all(annotate: Annotator, pictures: list[Path], out: Path) -> int:
    failed = 0
    for picture, target in zip(pictures, output_names(pictures, out), strict=True):
        try:
            print(f"{picture} -> {target}: {annotate(picture, target)}", flush=True)
        except ValueError as error:  # one broken picture in a folder does not stop the others
            print(f"error: {error}", file=sys.stderr)
            failed += 1
    return 1 if failed else 0


def _live(source: Source, options: argparse.Namespace) -> int:
    if len(options.pictures) > 1:
        raise ValueError("--live takes one folder, video or webcam")
    given = {"out": options.out} if options.out else {}
    pictures = options.pictures[0] if options.pictures else None
    return run_live(
        source,
        LiveOptions(
            options.live, options.on, pictures, options.score, options.bind, options.port, options.token,
            track_here=options.track_here, **given,
        ),
    )


if __name__ == "__main__":
    cli.run(main)
