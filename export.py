"""Make a trained detector, or any int8 .tflite, run on a chip: model.tflite, model.tess, plan.json, plan.png, verify.json.

    python export.py runs/demo --target mps2-an500 --out runs/demo/export
    python export.py person.tflite --target mps2-an500 --sram 96K --schedule patch:2x2@5 --out runs/person
    python export.py other.tflite --outputs block_5/add,block_9/add --out runs/backbone
"""

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from datasets import cli
from detection.exporter import MAX_DROP, export, load_network
from firmware.compiler.published import FORMS, check_schedule_text
from firmware.compiler.target import load_target, parse_size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="checkpoint, run folder, zoo folder or int8 .tflite")
    parser.add_argument("--target", default="mps2-an500", help="a name in configs/targets (default: mps2-an500)")
    parser.add_argument("--sram", type=parse_size, help="at most this much peak_sram, e.g. 96K; the target's own by default")
    parser.add_argument("--schedule", default="auto", help=f"{FORMS} (default: auto)")
    parser.add_argument("--calibration", type=int, default=256, metavar="N", help="training pictures for ranges (default: 256)")
    parser.add_argument("--verification", type=int, default=4, metavar="N", help="frames that must give equal bytes (default: 4)")
    parser.add_argument("--method", choices=("minmax", "percentile", "mse"), help="how ranges are chosen")
    parser.add_argument("--max-drop", type=float, default=MAX_DROP, metavar="POINTS", help="AP50 that int8 may lose (default: 2)")
    parser.add_argument("--sample", type=int, default=200, metavar="N", help="validation pictures to see that (default: 200)")
    parser.add_argument("--data", help="data YAML of the training pictures; the checkpoint's own by default")
    parser.add_argument("--outputs", type=lambda text: text.split(","), metavar="NAME,...", help="cut a .tflite at these tensors")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    options = parser.parse_args()

    console = Console(highlight=False, soft_wrap=True)
    check_schedule_text(options.schedule)
    target = load_target(options.target)
    network = load_network(
        options.source,
        options.calibration,
        options.verification,
        options.method,
        options.data,
        console.print,
        options.outputs,
        options.sample,
    )
    done = export(network, target, options.schedule, options.sram, options.out, console.print, options.max_drop)
    columns = ("", "peak SRAM, B", "recompute", "instructions, M", "schedule")
    table = Table(*columns, title=f"front of {network.graph.name}", title_justify="left")
    for point in done.front:
        mark = "→" if point.schedule == done.deployment.schedule else ""
        cost = point.cost
        row = (f"{cost.peak_sram:,}", f"+{cost.recompute:.1%}", f"{cost.instructions / 1e6:.1f}", str(point.schedule))
        table.add_row(mark, *row)
    console.print(table)
    cost = done.deployment.cost
    console.print(
        f"{done.folder}: {cost.macs / 1e6:.2f} M MACs, +{cost.recompute:.1%} recomputed, peak_sram {cost.peak_sram:,} B, "
        f"model.tess {done.tess_size:,} B; equal bytes: {', '.join(done.proof.agreeing)}"
    )
    if done.package:
        console.print(done.package.table())
        console.print(f"copy {done.folder} to the card; docs/openmv.md says the rest")
    return 0


if __name__ == "__main__":
    cli.run(main)
