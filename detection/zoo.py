"""A trained run as a zoo folder that anyone can run, and its card: `python -m detection.zoo pack|examples|card`.

    python -m detection.zoo pack runs/face_qvga zoo/face_qvga input.height=240     # checkpoint.pt, args.yaml, curves
    python export.py zoo/face_qvga --target mps2-an500 --out zoo/face_qvga
    python eval.py zoo/face_qvga --data configs/data/wider.yaml --on float,int8 --json zoo/face_qvga/metrics.json
    python -m detection.zoo examples zoo/face_qvga --data configs/data/wider.yaml  # examples.png: boxes, no picture
    python -m detection.zoo card zoo/face_qvga                                     # README.md from what lies there

`pack` leaves out what only training needs and changes no weight. `card` writes numbers from artefacts only.
"""

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import cli
from datasets.strict import merge_overrides, parse
from detection import arch as network
from detection import runs
from detection.config import Config
from detection.exporter import find_checkpoint
from detection.metrics.grouped import Q30
from detection.metrics.sizes import SIZES
from detection.observers import METHODS
from detection.readme import PROTOCOLS

if TYPE_CHECKING:
    from detection.checkpoint import Checkpoint


def pack(run: Path, folder: Path, overrides: list[str]) -> None:
    """Write checkpoint.pt (averaged weights alone) and the curves of `run` into `folder`; overrides change its config.

    The curves begin with those that led to the weights it started from (`train.init`).
    """
    from detection.checkpoint import load_detector, save_checkpoint
    from detection.plots import results_plot

    path = find_checkpoint(run)
    _, checkpoint = load_detector(path)
    config = parse(merge_overrides(checkpoint.config, overrides, Config), Config, f"{path} and overrides")
    folder.mkdir(parents=True, exist_ok=True)
    bare = replace(checkpoint, config=config.as_dict(), model={}, optimizer={}, scaler={}, rng_state=None)
    save_checkpoint(folder / "checkpoint.pt", bare)
    runs.write_text(folder / "args.yaml", runs.to_yaml(config))
    rows, seams = runs.join_results(runs.history(run, checkpoint.epoch))
    if rows:  # the learning curve is part of a model
        runs.write_results(folder / "results.csv", rows)
        runs.write_bytes(folder / "results.png", results_plot(rows, config.name, seams))


def write_examples(folder: Path, data: str, min_score: float, count: int) -> None:
    """examples.png: what the int8 network finds in `count` evenly spaced pictures of the validation split."""
    from datasets.catalog import open_dataset
    from datasets.config import load_data_config
    from datasets.subset import Subset, evenly_spaced
    from detection.examples import examples_plot
    from detection.sources import check_classes, find_source, is_classifier, open_predictor

    source = find_source(str(folder))
    if is_classifier(source):
        raise ValueError(f"{folder} is a classifier: it finds no boxes that could be drawn")
    whole = open_dataset(load_data_config(data), "val")
    check_classes(source, whole.classes)
    samples = Subset(whole, evenly_spaced(len(whole), count))
    title = f"{folder.name} in {len(samples)} evenly spaced of {len(whole):,} validation pictures, boxes from score {min_score:g}"
    runs.write_bytes(folder / "examples.png", examples_plot(open_predictor(source, "int8"), samples, min_score, title))


def write_card(folder: Path) -> None:
    """README.md of a zoo folder: what it is, how it was made, what it was measured to do, how to use it."""
    runs.write_text(folder / "README.md", card(folder))


def card(folder: Path) -> str:
    """The card's text, from plan.json, verify.json, metrics*.json, args.yaml and note.md beside them."""
    from detection.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(folder / "checkpoint.pt")
    config = parse(checkpoint.config, Config, str(folder / "checkpoint.pt"))
    plan, verified = _read(folder / "plan.json"), _read(folder / "verify.json")
    evaluations = [_read(path) for path in sorted(folder.glob("metrics*.json"))]
    height, width, _ = plan["input"]
    layers = config.arch.with_classes(len(checkpoint.class_names))
    epochs = len(runs.read_results(folder / "results.csv", math.inf))
    note = folder / "note.md"
    data = config.as_dict()["data"]
    return "\n".join(
        [
            f"# {folder.name}",
            "",
            f"Finds: {', '.join(checkpoint.class_names)}. Input {width}x{height}, {plan['macs'] / 1e6:.2f} M MACs, "
            f"{network.params(layers):,} parameters, {_training(checkpoint, epochs)}; "
            "the last averaged weights, none picked by a validation score.",
            "",
            *([note.read_text().strip(), ""] if note.is_file() else []),
            "## Measured",
            "",
            *[line for evaluation in evaluations for line in _measured(evaluation)],
            *(["![examples](examples.png)", ""] if (folder / "examples.png").is_file() else []),
            "## On the chip",
            "",
            *_chip(plan, verified),
            "",
            *_curve(checkpoint, epochs),
            "",
            "## Use it",
            "",
            f"    python demo.py {folder} photo.jpg --on host --out found",
            f"    python eval.py {folder} --data {data} --on float,int8,host --limit 100",
            f"    python export.py {folder} {_settings(plan, verified)} --out runs/{folder.name}",
            "",
            "This page is written by `python -m detection.zoo card` from the files beside it.",
            "",
        ]
    )


def _training(checkpoint: "Checkpoint", epochs: int) -> str:
    """`epochs`: of all runs that led to the checkpoint; it counts those of the last."""
    pictures = f", {checkpoint.progress['pictures']:,} pictures an epoch" if "pictures" in checkpoint.progress else ""
    last = f"{checkpoint.epoch} epochs of training ({checkpoint.iteration:,} iterations{pictures})"
    return f"{last} after {epochs - checkpoint.epoch} of earlier parts" if epochs > checkpoint.epoch else last


def _curve(checkpoint: "Checkpoint", epochs: int) -> list[str]:
    parts = "Dotted lines: a part of the training ends and the next begins, perhaps with other pictures of another size."
    return ["![learning curve](results.png)", *(["", parts] if epochs > checkpoint.epoch else [])]


def _measured(evaluation: dict[str, Any]) -> list[str]:
    dataset, results = evaluation["dataset"], evaluation["results"]
    title, names = next(
        (t, n) for t, n in PROTOCOLS if all(name in result["values"] for result in results for name in n)
    )
    whole = dataset["images"] == dataset["images_in_split"]
    part = "all" if whole else f"{dataset['images']:,} evenly spaced of"
    lines = [
        f"{title}, {dataset['name']} {dataset['split']}, {part} {dataset['images_in_split']:,} pictures, one scale:",
        "",
        f"| predictor | {' | '.join(names)} | bytes equal int8's | instructions an image |",
        "|---|" + "---|" * (len(names) + 2),
    ]
    for result in results:
        scores = " | ".join(_score(result, name) for name in names)
        compared, unequal = result["bytes"]["compared"], result["bytes"]["unequal"]
        agreement = "-" if not compared else f"{compared - unequal:,} of {compared:,} pictures"
        counted = result["instructions_per_image"]
        lines.append(f"| {result['name']} | {scores} | {agreement} | {'-' if counted is None else f'{counted:,.0f}'} |")
    parts = _in_parts(results[-1]) if whole else []  # of a few pictures, parts would be chance
    return [*lines, "", *parts, *_on_device(evaluation)]


def _score(result: dict[str, Any], name: str) -> str:
    """`0.7830 [0.768, 0.798]`: the value and its bootstrap interval over pictures."""
    if (value := result["values"][name]) is None:
        return "-"
    low, high = result["intervals"].get(name, (None, None))
    return f"{value:.4f}" if low is None else f"{value:.4f} [{low:.3f}, {high:.3f}]"


def _in_parts(result: dict[str, Any]) -> list[str]:
    """AP50 by the size at which the network sees an object, and by class where there are several."""
    by_size = {words: result["values"].get(name) for name, words in SIZES.items()}
    by_class = {name: values.get("voc_ap50_area") for name, values in result["by_class"].items()}
    lines = []
    for what, values in (("by side in the network's input", by_size), ("by class", by_class if len(by_class) > 1 else {})):
        if any(value is not None for value in values.values()):
            cells = ", ".join(f"{name} {'-' if value is None else f'{value:.3f}'}" for name, value in values.items())
            lines += [f"AP50 ({result['name']}) {what}: {cells}.", ""]
    return lines


def _on_device(evaluation: dict[str, Any]) -> list[str]:
    """What an evaluation with board:PORT says besides: the device's own average precision, and what pictures cost there."""
    counted, latency = evaluation.get("device_ap"), evaluation.get("latency")
    lines = []
    if counted and counted["ap50_q30"] is not None:
        lines.append(
            f"The device counted AP50 {counted['ap50_q30'] / Q30:.4f} itself, to the bit what the host counts in the same way; "
            f"by sorted scores it is {counted['ap50_q30'] / Q30 - counted['minus_sorted']:.4f}."
        )
    if latency and latency["count"]:
        count, operators = latency["count"], [part for part in latency["parts"] if part["group"] == "operator"]
        shares = ", ".join(f"{part['name']} {part['p50'] / count['p50']:.1%}" for part in operators[:3])
        lines.append(
            f"{latency['target']}, {latency['unit']} a picture: p50 {count['p50']:,}, p95 {count['p95']:,}, most {count['max']:,}"
            f"{f' ({shares})' if shares else ''}; stack {latency['stack_most']:,} B, work memory touched "
            f"{latency['work_memory_most']:,} of {latency['work_memory']:,} B."
        )
    return [*lines, ""] if lines else []


def _chip(plan: dict[str, Any], verified: dict[str, Any]) -> list[str]:
    parts = ", ".join(f"{name.replace('_', ' ')} {size:,}" for name, size in plan["peak_sram_parts"].items())
    return [
        f"Peak SRAM {plan['peak_sram']:,} B ({parts}); recomputed MACs {plan['recompute']:+.1%}; "
        f"{'reads the picture once, top to bottom' if plan['sequential'] else 'needs rows of the picture again'}. "
        f"In the published convention (feature maps alone, picture not counted) {plan['paper_sram']:,} B. "
        f"model.tess is {plan['flash']['model']:,} B.",
        "",
        f"Equal to the byte on {verified['frames']} frames ({verified['compared_bytes']:,} bytes): "
        f"{', '.join(verified['agreeing'])}.",
        "",
        "![memory plan](plan.png)",
    ]


def _settings(plan: dict[str, Any], verified: dict[str, Any]) -> str:
    """What export.py has to be told to come to the same files."""
    ranges = verified.get("ranges")  # of networks that were trained in theirs, none is to be chosen
    method = f" --method {ranges}" if ranges in METHODS else ""
    return f"--target mps2-an500 --sram {plan['peak_sram']}{method}"


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="make a zoo folder of a run")
    packing.add_argument("run", type=Path)
    packing.add_argument("folder", type=Path)
    packing.add_argument("overrides", nargs="*", metavar="key=value")
    showing = commands.add_parser("examples", help="draw what a zoo folder's detector finds, without the pictures")
    showing.add_argument("folder", type=Path)
    showing.add_argument("--data", required=True, help="data YAML")
    showing.add_argument("--score", type=float, default=0.3, help="boxes from this score upwards (default: %(default)s)")
    showing.add_argument("--number", type=int, default=8, metavar="N", help="of pictures (default: %(default)s)")
    carding = commands.add_parser("card", help="write README.md of a zoo folder")
    carding.add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.command == "pack":
        pack(options.run, options.folder, options.overrides)
    elif options.command == "examples":
        write_examples(options.folder, options.data, options.score, options.number)
    else:
        write_card(options.folder)
    return 0


if __name__ == "__main__":
    cli.run(main)
