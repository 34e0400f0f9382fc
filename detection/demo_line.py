"""The whole line in a few minutes, nothing to download: `make demo`, or `python -m detection.demo_line`.

Draw scenes, train a small detector on them, shrink it to int8, choose a schedule, prove equal bytes, run it in torch, in the
interpreter, in the C runtime here and on an emulated Cortex-M7, and put everything into one table and one page.
Every step is the one that train.py, export.py and eval.py take.
"""

import argparse
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from datasets import cli
from datasets.catalog import open_dataset
from datasets.config import load_data_config
from datasets.dataset import Dataset
from datasets.subset import Subset, evenly_spaced
from detection import draw, results
from detection.config import Config, load_config
from detection.evaluate import Evaluation, evaluate_together
from detection.exporter import Export, export, load_network
from detection.metrics.protocols import evaluators_for
from detection.pictures import save_picture
from detection.report import FrontRow, Picture, PredictorRow, ReportData, write_report
from detection.sources import find_source, open_predictor
from firmware.compiler.target import load_target

METRIC = "voc_ap50_area"
SHOWN_SCORE = 0.3  # boxes drawn in pictures
ENLARGED = 3  # the scenes are small


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/demo.yaml")
    parser.add_argument("--target", default="mps2-an500")
    parser.add_argument("--images", type=int, default=200, help="test pictures for float, int8 and host (default: 200)")
    parser.add_argument("--emulated", type=int, default=16, help="of these, pictures for the emulator (default: 16)")
    parser.add_argument("--calibration", type=int, default=256, help="training pictures for int8 ranges (default: 256)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the run is RUNS/NAME, replaced when it exists")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings for training, e.g. train.epochs=2")
    options = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)

    config = load_config(options.config, options.overrides)
    run = options.runs / config.name
    if run.exists():
        shutil.rmtree(run)  # the demo's own output, made anew
    console.rule("1 train")
    _train(options.config, options.runs, options.overrides)
    console.rule("2 export: int8, schedule, memory plan, proof")
    network = load_network(run, options.calibration, 4, None, None, console.print, sample=options.images)
    done = export(network, load_target(options.target), "auto", None, run / "export", console.print)
    console.rule("3 run on the test pictures")
    evaluations, pictures = _evaluate(config, run, options.target, options.images, options.emulated, console)
    console.rule("4 results")
    drawn = _draw(run, pictures, tuple(network.metadata["classes"]))
    table = _table(evaluations, done)
    console.print(table)
    write_report(run / "report.html", _report(run, config, evaluations, done, drawn))
    console.print(f"pictures with boxes: {', '.join(str(p) for p in drawn[:3])}")
    console.print(f"report: {run / 'report.html'}")
    wrong = [e.difference for e in evaluations if e.difference is not None]
    if wrong:
        raise ValueError("; ".join(map(str, wrong)))
    return 0


def _train(config: str, runs: Path, overrides: list[str]) -> None:
    """Training in a process of its own: its memory and its threads are gone when the rest begins."""
    command = [sys.executable, "train.py", "--config", config, "--runs", str(runs), *overrides]
    if subprocess.run(command).returncode:
        raise ValueError(f"training failed: {' '.join(command[1:])}")


def _evaluate(
    config: Config, run: Path, target: str, images: int, emulated: int, console: Console
) -> tuple[list[Evaluation], Dataset | Subset]:
    """float, int8 and host on many pictures, then int8 and the emulator on a few: the same bytes, counted instructions."""
    data = load_data_config(config.data)
    whole = open_dataset(data, "val")
    pictures = Subset(whole, evenly_spaced(len(whole), images))
    new_evaluators = evaluators_for(data.format, data.path, "val", whole.classes)
    source = find_source(run)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("float, int8, host", total=len(pictures))
        predictors = [open_predictor(source, name) for name in ("float", "int8", "host")]
        found = evaluate_together(predictors, pictures, new_evaluators, lambda done, _: bar.update(task, completed=done))
        try:
            emulator = open_predictor(source, f"emulator:{target}")
        except ValueError as error:  # no cross-compiler or no QEMU: the message says what to install
            console.print(f"going on with the host alone: {error}")
            return found, pictures
        few = Subset(pictures, evenly_spaced(len(pictures), emulated))
        task = bar.add_task(target, total=len(few))
        predictors = [open_predictor(source, "int8"), emulator]
        small = evaluate_together(predictors, few, new_evaluators, lambda done, _: bar.update(task, completed=done))
    return [*found, small[1]], pictures


def _draw(run: Path, pictures: Dataset | Subset, classes: tuple[str, ...], count: int = 6) -> list[Path]:
    """Test pictures, the truth on the left and the host's boxes on the right."""
    predictor = open_predictor(find_source(run), "host", raw=False)
    paths = []
    for index in evenly_spaced(len(pictures), count):
        sample = pictures[index]
        size = (sample.width, sample.height)
        found = predictor(sample.image, *size)
        big = cv2.resize(sample.image, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_CUBIC)
        truth = draw.draw_truth(big, sample.truth, classes, size)
        boxes = draw.draw_detections(big, found, classes, size, SHOWN_SCORE)
        paths.append(run / "pictures" / f"{sample.image_id.replace('/', '_')}.png")
        save_picture(paths[-1], draw.tile_pictures([truth, boxes], 2))
    return paths


def _table(evaluations: list[Evaluation], done: Export) -> Table:
    cost = done.deployment.cost
    table = Table(title="one network, everywhere", title_justify="left")
    for heading in ("predictor", "images", "AP50", "bytes", "peak SRAM", "model.tess", "MACs", "recompute", "instructions"):
        table.add_column(heading, justify="left" if heading in ("predictor", "bytes") else "right", no_wrap=True)
    for e in evaluations:
        on_chip = e.name.startswith(("host", "emulator"))
        table.add_row(
            e.name,
            str(e.images),
            f"{e.metrics.values[METRIC]:.4f}",
            results.agreement(e),
            f"{cost.peak_sram:,} B" if on_chip else "-",
            f"{done.tess_size:,} B" if on_chip else "-",
            f"{(cost.scheduled_macs if on_chip else cost.macs) / 1e6:.2f} M",
            f"+{cost.recompute:.1%}" if on_chip else "-",
            "-" if e.instructions is None else f"{e.instructions / 1e6:.2f} M",
        )
    return table


def _report(run: Path, config: Config, evaluations: list[Evaluation], done: Export, drawn: list[Path]) -> ReportData:
    cost, graph = done.deployment.cost, done.network.graph
    counted = [e.instructions for e in evaluations if e.instructions is not None]
    headline = [
        ("AP50, int8", f"{next(e for e in evaluations if e.name == 'int8').metrics.values[METRIC]:.3f}"),
        ("peak SRAM, all in", f"{cost.peak_sram / 1000:.1f} kB"),
        ("model.tess", f"{done.tess_size / 1000:.1f} kB"),
        ("multiply-accumulates", f"{cost.macs / 1e6:.2f} M"),
    ]
    if counted:
        headline.append(("instructions an image", f"{counted[0] / 1e6:.1f} M"))
    curves = run / "results.png"
    return ReportData(
        title=f"Tessera: {config.name}",
        summary=f"{graph.name} at {config.input.width}x{config.input.height}, trained, shrunk to int8, scheduled, and run on "
        f"every station of the line; {done.proof.compared_bytes:,} output bytes were compared before anything was written.",
        metric="AP50 (VOC, area)",
        headline=tuple(headline),
        predictors=tuple(_predictor_row(e, done) for e in evaluations),
        learning_curve=Picture(curves, "losses and mAP over the epochs") if curves.is_file() else None,
        memory_plan=Picture(done.folder / "plan.png", "where every buffer lives, step by step, and the front of schedules"),
        detections=tuple(Picture(path, "truth on the left, the C runtime's boxes on the right") for path in drawn),
        front=tuple(
            FrontRow(str(d.schedule), d.cost.peak_sram, d.cost.scheduled_macs, d.cost.recompute, d is done.deployment)
            for d in done.front
        ),
        published=tuple(
            FrontRow(m.name, m.deployment.cost.peak_sram, m.deployment.cost.scheduled_macs, m.deployment.cost.recompute)
            for m in done.published
        ),
        environment=(("python", platform.python_version()), ("machine", platform.machine()), ("config", config.name)),
    )


def _predictor_row(evaluation: Evaluation, done: Export) -> PredictorRow:
    cost = done.deployment.cost
    on_chip = evaluation.name.startswith(("host", "emulator"))
    return PredictorRow(
        f"{evaluation.name}, {evaluation.images} pictures",
        evaluation.metrics.values[METRIC],
        cost.peak_sram if on_chip else None,
        done.tess_size if on_chip else None,
        cost.scheduled_macs if on_chip else cost.macs,
        cost.recompute if on_chip else None,
        None if evaluation.instructions is None else round(evaluation.instructions),
    )


if __name__ == "__main__":
    cli.run(main)
