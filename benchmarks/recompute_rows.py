"""Would segments that compute rows again, instead of carrying them, improve the front? `python -m benchmarks.recompute_rows`.

For every fused segment of the leaner half of each front: all strips with rows carried, as the search tries them, against strips
of bands of several heights without. A way counts when no carried one of the same nodes has as few bytes and as little work.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.networks import MNASNET_B1, MOBILENET_V2, MOBILENET_V2_RD, backbone
from benchmarks.segment_cost import peak_and_work
from firmware.compiler.geometry import COLUMNS
from firmware.compiler.program import Program
from firmware.compiler.schedule import Segment, reference_of
from firmware.compiler.search import Deployment, search_orders
from firmware.compiler.tflite import read_tflite


def ways(program: Program, first: int, stop: int) -> tuple[list[Segment], list[Segment]]:
    """(with rows carried, without) of one run of nodes."""
    nodes, reference = program.nodes, reference_of(program, Segment(first, stop))
    columns = [c for c in COLUMNS if c == 1 or c <= min(nodes[i].shape.w for i in range(first, stop)) // 2]
    height = nodes[reference].shape.h
    rows = sorted({r for r in (1, 2, 4, height // 8, height // 4, height // 2) if 1 <= r <= height})
    modes = [(push, latch) for push in (True, False) for latch in (True, False)]
    carried = [Segment(first, stop, c, push=push, latch=latch) for c in columns for push, latch in modes]
    return carried, [Segment(first, stop, c, r, carry=False) for c in columns for r in rows]


def row(name: str, front: Sequence[Deployment]) -> dict[str, Any]:
    program = front[0].scheduled.program
    runs = {(s.first, s.stop) for d in front[len(front) // 2 :] for s in d.schedule.segments if s.stop - s.first > 1}
    tried, better = 0, []
    for first, stop in sorted(runs):
        carried, recomputed = ways(program, first, stop)
        known = [peak_and_work(program, s) for s in carried]
        least, work = min(known)
        for segment in recomputed:
            tried += 1
            peak, again = peak_and_work(program, segment)
            if not any(p <= peak and w <= again for p, w in known):
                way = {"nodes": [first, stop], "columns": segment.columns, "rows": segment.rows}
                better.append(way | {"bytes": peak, "recompute": again, "carried_bytes": least, "carried_recompute": work})
    most = max((1 - b["bytes"] / b["carried_bytes"] for b in better), default=0.0)
    price = min(((b["recompute"] - b["carried_recompute"]) / program.macs for b in better), default=0.0)
    summary = {"tried": tried, "not_beaten": len(better), "most_bytes_saved": most, "least_work_added": price}
    return {"network": name, "macs": program.macs, "runs": len(runs), **summary, "ways": better}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="*", help="int8 .tflite files to add")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/recompute_rows.json"))
    options = parser.parse_args()
    networks = {
        "MobileNetV2-1.0 224": backbone("MobileNetV2-1.0", MOBILENET_V2, 224),
        "MobileNetV2-RD 224": backbone("MobileNetV2-RD", MOBILENET_V2_RD, 224),
        "MobileNetV2-0.35 144": backbone("MobileNetV2-0.35", MOBILENET_V2, 144, 0.35),
        "MnasNet-B1 224": backbone("MnasNet-B1", MNASNET_B1, 224),
    } | {path.stem: read_tflite(path.read_bytes()) for path in options.models}
    rows = []
    for name, graph in networks.items():
        rows.append(row(name, search_orders(graph)))
        r = rows[-1]
        print(
            f"{name}: {r['not_beaten']} of {r['tried']} ways not beaten; they save at most {r['most_bytes_saved']:.1%} of a "
            f"segment's bytes and add at least {r['least_work_added']:.1%} multiply-accumulates"
        )
    options.json.write_text(json.dumps({"networks": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
