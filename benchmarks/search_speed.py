"""How long the schedule search takes, in seconds of CPU time on one core: `python -m benchmarks.search_speed [FILE.tflite ...]`.

`front`: the best order of operators and its whole front, nothing known. `fits_first_call` and `fits_known_geometry`: one
candidate within a given SRAM, the median over all points of the front. A first call works out rows and columns of a network
seen for the first time; a joint search, whose candidates differ in channels, pays that once and the second figure for each.
Each time is the least of several: what else runs on a machine adds to CPU time as well.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.networks import MNASNET_B1, MOBILENET_V2, MOBILENET_V2_RD, backbone
from firmware.compiler import geometry
from firmware.compiler.graph import Graph
from firmware.compiler.search import best_order, fits, search_orders
from firmware.compiler.tflite import read_tflite

REPEATS = 3


def cpu_seconds(work: Callable[[], Any]) -> float:
    best = float("inf")
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def row(graph: Graph) -> dict[str, Any]:
    program = best_order(graph)

    def fresh(work: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: (geometry.forget(), work())[1]

    front = search_orders(graph)
    limits = [d.cost.peak_sram for d in front]
    seconds = {
        "front": cpu_seconds(fresh(lambda: search_orders(graph))),
        "fits_first_call": statistics.median(cpu_seconds(fresh(lambda s=s: fits(program, s))) for s in limits),
        "fits_known_geometry": statistics.median(cpu_seconds(lambda s=s: fits(program, s)) for s in limits),
    }
    points = [[d.cost.peak_sram, d.cost.scheduled_macs] for d in front]
    return {"network": graph.name, "nodes": len(program.nodes), "cpu_seconds": seconds, "front": points}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="*", help="int8 .tflite files to add")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/search_speed.json"))
    options = parser.parse_args()
    graphs = [
        ("MobileNetV2-1.0 224", backbone("MobileNetV2-1.0", MOBILENET_V2, 224)),
        ("MobileNetV2-RD 224", backbone("MobileNetV2-RD", MOBILENET_V2_RD, 224)),
        ("MobileNetV2-0.35 144", backbone("MobileNetV2-0.35", MOBILENET_V2, 144, 0.35)),
        ("MnasNet-B1 224", backbone("MnasNet-B1", MNASNET_B1, 224)),
        *((path.stem if path.stem != "model" else path.parent.name, read_tflite(path.read_bytes())) for path in options.models),
    ]
    rows = []
    for name, graph in graphs:
        rows.append(row(graph) | {"network": name})
        times = ", ".join(f"{what} {seconds:.3f} s" for what, seconds in rows[-1]["cpu_seconds"].items())
        print(f"{name}, {rows[-1]['nodes']} nodes: {times}", flush=True)
    options.json.write_text(json.dumps({"unit": "seconds of CPU time, one core", "networks": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
